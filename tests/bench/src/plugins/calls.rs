//! Cost of a call of `build`, with a fresh instance each time as in the operator. The plugins take
//! turns, so that other load on the machine affects all of them equally.

use std::time::{Duration, Instant};

use flashjob_plugin_host::types::{Device, Request};
use flashjob_plugin_host::{Logins, Plugin};
use serde::Serialize;

use super::shelf::{Kind, Shelf};

/// Calls of one plugin before the next has its turn, as a job calls it for one device after the
/// other.
const TURN: usize = 10;
/// Turns of each plugin that are not counted.
const WARM_UP: usize = 20;

/// Cost of the calls of one plugin.
#[derive(Clone, Debug, Serialize)]
pub struct Calls {
    /// Duration of each call, sorted.
    #[serde(skip)]
    pub times: Vec<Duration>,
    /// Linear memory at the end of a call, in bytes.
    pub memory: usize,
}

/// Measures each plugin, in the order of [`Kind::ALL`].
pub async fn measure(shelf: &Shelf, calls: usize) -> anyhow::Result<Vec<Calls>> {
    let mut plugins = Vec::new();
    for kind in Kind::ALL {
        let setup = shelf.setup(kind, 1);
        let host = setup.host()?;
        for source in setup.sources() {
            let plugin = host.load(&source, &Logins::none()).await?;
            plugins.push(MeasuredPlugin {
                request: request(&source.name),
                plugin,
                times: Vec::new(),
            });
        }
    }
    // On a thread of the runtime, as in the operator.
    let plugins = tokio::spawn(take_turns(plugins, calls)).await??;
    let mut measured = Vec::new();
    for MeasuredPlugin { plugin, request, mut times } in plugins {
        times.sort();
        let memory = plugin.measure_build(&request).await.cost.memory;
        measured.push(Calls { times, memory });
    }
    Ok(measured)
}

struct MeasuredPlugin {
    plugin: Plugin,
    request: Request,
    times: Vec<Duration>,
}

async fn take_turns(
    mut plugins: Vec<MeasuredPlugin>,
    calls: usize,
) -> anyhow::Result<Vec<MeasuredPlugin>> {
    for turn in 0..WARM_UP + calls.div_ceil(TURN) {
        // The order of the plugins rotates, so that none always follows the same one.
        for number in 0..plugins.len() {
            let next = (turn + number) % plugins.len();
            let MeasuredPlugin { plugin, request, times } = &mut plugins[next];
            for _ in 0..TURN {
                let since = Instant::now();
                plugin.build(request).await?;
                times.push(since.elapsed());
            }
        }
    }
    for MeasuredPlugin { times, .. } in &mut plugins {
        times.drain(..WARM_UP * TURN);
    }
    Ok(plugins)
}

/// Returns a request such as the operator sends for a device that Akri found.
fn request(device_type: &str) -> Request {
    let texts = |texts: &[(&str, &str)]| {
        texts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let device = Device {
        uid: "0d0e9ad0-6ce4-4b8e-9e3f-3a1d7b0c6a52".to_owned(),
        name: "akri-esp32-0a1b2c".to_owned(),
        endpoint: Some("10.1.2.3:80".to_owned()),
        device_type: device_type.to_owned(),
        application_type: Some("thermo".to_owned()),
        reported_version: Some("0.1.0".to_owned()),
        nodes: vec!["node-1".to_owned()],
        properties: texts(&[
            ("AKRI_HTTP", "http"),
            ("APPLICATION_TYPE", "thermo"),
            ("DEVICE", device_type),
            ("HOST_ENDPOINT", "10.1.2.3:80"),
            ("VERSION", "0.1.0"),
        ]),
    };
    Request {
        namespace: "default".to_owned(),
        job: "thermometers".to_owned(),
        device,
        firmware: "harbor.nbfc.io/nubificus/firmware:0.2.0".to_owned(),
        version: "0.2.0".to_owned(),
        image: Some("harbor.nbfc.io/nubificus/iot/esp32-sota:latest".to_owned()),
        settings: "{}".to_owned(),
        attempt: 1,
    }
}
