//! Ends the program at each step of each subcommand, by SIGTERM and by SIGKILL: it reports what
//! the device has received, and the next attempt flashes the device.

mod http_device;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::http_device::HttpDevice;
use crate::world::plugin::{DeviceRequest, noise};
use crate::world::run::{Ended, Run, until};
use crate::world::{World, firmware, image, index};
use flashjob_plugin_esp_serial::EspSerial;
use flashjob_plugin_http_push::HttpPush;
use flashjob_plugin_mcumgr::Mcumgr;
use flashjob_simulators::devices::Behaviour;
use flashjob_simulators::serial::loader::Settings;
use flashjob_simulators::serial::{Chip, Trouble, TroubleKind};
use flashjob_simulators::smp::{self, SmpDevice, mcuboot_image};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Signals that end a container.
const SIGNALS: [Signal; 2] = [Signal::TERM, Signal::KILL];
/// Log line of a program that finishes the transfer before it ends.
const FINISHES: &str = "finishing the transfer first";
/// Firmware size that exceeds all buffers of a connection, in bytes.
const LARGE: usize = 16 << 20;

/// Step of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The registry has not answered yet.
    Fetching,
    /// The device has not answered yet, or has not called.
    Asking,
    /// The device knows the firmware's URL, and has not begun to fetch it.
    Told,
    /// The device has received a part of the firmware.
    Sending,
    /// The device has received all the firmware, and has not proven that it runs it.
    Proving,
}

/// Returns each step with each signal, numbered.
fn cases(steps: &[Step]) -> impl Iterator<Item = (usize, Signal, Step)> {
    let pairs = steps.iter().flat_map(|step| SIGNALS.map(|signal| (signal, *step)));
    pairs.enumerate().map(|(index, (signal, step))| (index + 1, signal, step))
}

/// A registry that accepts connections and never answers.
struct SilentRegistry {
    reference: String,
    called: Arc<AtomicBool>,
}

impl SilentRegistry {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let reference = format!("{}/a/b:1", listener.local_addr().expect("bound"));
        let called = Arc::<AtomicBool>::default();
        let flag = called.clone();
        tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok(connection) = listener.accept().await {
                flag.store(true, Ordering::Relaxed);
                connections.push(connection);
            }
        });
        Self { reference, called }
    }

    async fn is_called(&self) {
        until(|| self.called.load(Ordering::Relaxed), || "the registry is called".into()).await;
    }
}

/// Starts the program for a step; for the step `Fetching` with a registry that never answers.
async fn start(mut program: Command, folder: &std::path::Path, step: Step) -> Run {
    if step != Step::Fetching {
        return Run::start(program, folder);
    }
    let registry = SilentRegistry::start().await;
    program.env("FIRMWARE", &registry.reference);
    let run = Run::start(program, folder);
    registry.is_called().await;
    run
}

/// Checks the result of an attempt that was asked to end, with the bytes that the device has
/// received; None if the device was not changed.
fn is_told(ended: &Ended, signal: Signal, bytes: Option<usize>, case: &str) {
    if signal == Signal::KILL {
        assert_eq!((ended.code, &ended.message), (None, &Value::Null), "{case}");
        return;
    }
    assert_eq!((ended.code, &ended.message["code"]), (Some(12), &json!("Interrupted")), "{case}");
    assert_eq!(ended.message["bytes"], json!(bytes), "{case}: {}", ended.message);
}

fn is_sent(ended: &Ended, case: &str) {
    let message = &ended.message;
    assert_eq!((ended.code, &message["code"]), (Some(0), &json!("Sent")), "{case}: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_calls_back_is_flashed_by_the_next_attempt() {
    let thermo = image("esp32", "firmware/thermo.bin", &firmware("2", LARGE));
    for (number, signal, step) in cases(&[Step::Fetching, Step::Asking, Step::Sending]) {
        let case = format!("{step:?}, {signal:?}");
        let behaviour = match step {
            Step::Sending => Behaviour { transfer_ms: 1500, ..Behaviour::default() },
            _ => Behaviour { no_callback: true, ..Behaviour::default() },
        };
        let host = format!("127.81.1.{number}");
        let world = World::with(&host, None, behaviour, index(vec![thermo.clone()])).await;
        let run = start(world.program(), world.folder.path(), step).await;
        match step {
            Step::Asking => _ = world.becomes("asked", |report| report.updates > 0).await,
            Step::Sending => run.says("percent").await,
            _ => {}
        }
        run.signal(signal);
        let ended = run.ends().await;
        match (step, signal) {
            (Step::Sending, Signal::TERM) => is_sent(&ended, &case),
            _ => is_told(&ended, signal, None, &case),
        }
        assert!(world.fleet.behave(&world.report().id, Behaviour::default()));
        is_sent(&Run::start(world.program(), world.folder.path()).ends().await, &case);
        world.becomes("flashed", |report| report.version == "2").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_over_http_is_flashed_by_the_next_attempt_and_told_what_it_has() {
    let firmware = [b"2.0.0\n".to_vec(), noise(LARGE)].concat();
    let uploads = json!({"versionPath": "/version"});
    let fetches = json!({
        "body": "url", "method": "GET", "path": "/ota?u={url}", "versionPath": "/version",
    });
    let common_steps = [Step::Fetching, Step::Asking, Step::Sending, Step::Proving];
    let ways = [
        (uploads, common_steps.to_vec()),
        (fetches, [common_steps.as_slice(), &[Step::Told]].concat()),
    ];
    for (way, (settings, steps)) in ways.iter().enumerate() {
        for (number, signal, step) in cases(steps) {
            let case = format!("{settings}, {step:?}, {signal:?}");
            let host = format!("127.82.{way}.{number}");
            let device = HttpDevice::start(&host, step).await;
            let endpoint = device.endpoint.clone();
            let device_request =
                DeviceRequest::new("http-kiln", endpoint, settings, &firmware).await;
            let program = || {
                let mut program = device_request.program::<HttpPush>(&host, &[]);
                program.env("FLASHER_LISTEN", &host);
                program
            };
            let run = start(program(), device_request.folder.path(), step).await;
            if step != Step::Fetching {
                device.stops().await;
            }
            run.signal(signal);
            if (step, signal) == (Step::Sending, Signal::TERM) {
                run.says(FINISHES).await;
                device.go_on();
            }
            let ended = run.ends().await;
            let bytes = matches!(step, Step::Sending | Step::Proving).then_some(firmware.len());
            is_told(&ended, signal, bytes, &case);
            device.go_on();
            is_sent(&Run::start(program(), device_request.folder.path()).ends().await, &case);
            until(|| device.has(&firmware), || case.clone()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_mcuboot_is_confirmed_by_the_next_attempt_on_udp_and_on_a_serial_port() {
    let (old, new) = (mcuboot_image([1, 0, 0], 60_000), mcuboot_image([2, 0, 0], 60_000));
    let steps = [Step::Fetching, Step::Asking, Step::Sending, Step::Proving];
    for is_serial in [false, true] {
        for (_, signal, step) in cases(&steps) {
            let case = format!("serial port: {is_serial}, {step:?}, {signal:?}");
            let behaviour = smp::Behaviour {
                stops_at: match step {
                    Step::Asking => Some(0),
                    Step::Sending => Some(20_000),
                    _ => None,
                },
                never_back: step == Step::Proving,
                ..smp::Behaviour::default()
            };
            let mut device_request =
                DeviceRequest::new("nrf52840", String::new(), &json!({}), &new).await;
            let device = if is_serial {
                let device =
                    SmpDevice::on_serial_port(old.clone(), behaviour).expect("a terminal");
                let port = ("UDEV_DEVNODE".to_owned(), device.place.clone());
                device_request.request.device.properties = vec![port];
                device
            } else {
                let device = SmpDevice::on_udp(old.clone(), behaviour).expect("a port");
                device_request.request.device.endpoint = Some(device.place.clone());
                device
            };
            let program = || {
                let mut program = device_request.program::<Mcumgr>("", &[]);
                program.env("FLASHER_ANSWER_TIMEOUT", "2s");
                program
            };
            let run = start(program(), device_request.folder.path(), step).await;
            let is_there = || match step {
                Step::Asking => device.requests() > 0,
                Step::Sending => device.uploaded() >= 20_000,
                Step::Proving => device.resets() > 0,
                _ => true,
            };
            until(is_there, || case.clone()).await;
            run.signal(signal);
            if (step, signal) == (Step::Sending, Signal::TERM) {
                run.says(FINISHES).await;
                device.go_on();
            }
            let ended = run.ends().await;
            let bytes = matches!(step, Step::Sending | Step::Proving).then_some(new.len());
            is_told(&ended, signal, bytes, &case);
            device.go_on();
            let ended = Run::start(program(), device_request.folder.path()).ends().await;
            is_sent(&ended, &case);
            assert_eq!(ended.message["proven"], true, "{case}");
            let state = (device.runs(), device.is_confirmed(), device.resets());
            assert_eq!(state, ("2.0.0".to_owned(), true, 1), "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chip_on_a_serial_port_is_flashed_by_the_next_attempt() {
    let firmware = noise(200_000);
    for (_, signal, step) in cases(&[Step::Fetching, Step::Asking, Step::Sending]) {
        let case = format!("{step:?}, {signal:?}");
        let after_blocks = if step == Step::Sending { 2 } else { 0 };
        let trouble = Trouble { kind: TroubleKind::Waits, after_blocks };
        let chip = Chip::with(Settings::default(), Some(trouble)).expect("a terminal");
        let mut device_request =
            DeviceRequest::new("esp32", String::new(), &json!({}), &firmware).await;
        device_request.request.device.properties =
            vec![("UDEV_DEVNODE".to_owned(), chip.port.clone())];
        let program = || {
            let mut program = device_request.program::<EspSerial>("", &[]);
            program.env("FLASHER_BEFORE", "no-reset").env("FLASHER_AFTER", "no-reset");
            program
        };
        let run = start(program(), device_request.folder.path(), step).await;
        let is_there = || match step {
            Step::Asking => chip.report().requests > 0,
            Step::Sending => chip.report().blocks == 2,
            _ => true,
        };
        until(is_there, || case.clone()).await;
        run.signal(signal);
        if (step, signal) == (Step::Sending, Signal::TERM) {
            run.says(FINISHES).await;
            chip.go_on();
        }
        let ended = run.ends().await;
        match (step, signal) {
            (Step::Sending, Signal::TERM) => is_sent(&ended, &case),
            _ => is_told(&ended, signal, None, &case),
        }
        // On a real board, the control lines reset the chip.
        chip.reset();
        chip.go_on();
        is_sent(&Run::start(program(), device_request.folder.path()).ends().await, &case);
        assert!(chip.content(0, firmware.len()) == firmware, "{case}");
    }
}
