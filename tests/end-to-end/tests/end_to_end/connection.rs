//! Faults of the HTTP/2 connection to the API server; nothing is lost, nothing is done twice.

use anyhow::{bail, ensure};
use flashjob_end_to_end::counted::{Counted, updates};
use flashjob_end_to_end::{LIMIT, create, delete, job, nothing_left, pod_where, runs};
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed, Wire};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

/// Devices that are flashed. They are the first ones of the testbed.
const FLASHED: usize = 12;
/// Devices that only have Pods: the Pods and Services of these and the others are more than the 100
/// streams that the API server allows in a connection.
const UNFLASHED: usize = 45;
/// Connections that a job may open without a fault: a renewal of the Lease that takes too long
/// opens one, and so does a client that was idle for 90 s.
const FEW: usize = 5;
/// Connections that have to be replaced after GOAWAY, in addition to those opened without it.
const REPLACED: usize = 3;
/// Fraction of requests after which the API server sends GOAWAY: the highest that it accepts.
const GOAWAY_CHANCE: f64 = 0.02;
/// Most jobs until then. The operator sends about 100 requests for one.
const JOBS: usize = 30;

/// One control plane serves all cases: each fault is over before the next begins.
#[tokio::test]
async fn under_faults_of_the_connection_a_device_is_flashed_as_often_as_its_attempts_say()
-> anyhow::Result<()> {
    let mut options = Options {
        devices: vec![
            format!("esp32:thermo:0.1.0={FLASHED}"),
            format!("esp32s2:thermo:0.1.0={UNFLASHED}"),
        ],
        addresses: u32::try_from(FLASHED + UNFLASHED)?,
        flasher_callback_timeout_ms: 30_000,
        ..Options::default()
    };
    // A Pod that waits for its image, or for the scheduler after a restart of the API server, is
    // no failure of a device here.
    options.periods["imagePullSeconds"] = json!(600);
    options.periods["unschedulableSeconds"] = json!(600);
    let mut testbed = Testbed::start(&options).await?;
    let wire = Wire::start(&mut testbed.control_plane).await?;
    testbed.start_operator().await?;
    more_requests_at_once_than_streams_need_no_other_connection(&testbed, &wire).await?;
    let calm = opened_without_a_fault(&testbed, &wire).await?;
    connections_are_cut_during_a_run(&testbed, &wire).await?;
    connections_fall_silent_during_a_run(&testbed, &wire).await?;
    the_api_server_asks_for_other_connections(&mut testbed, &wire, calm).await?;
    nothing_left(&testbed).await
}

/// The plan for a deleted FlashJob sends the deletions of all its Pods and Services at once.
async fn more_requests_at_once_than_streams_need_no_other_connection(
    testbed: &Testbed,
    wire: &Wire,
) -> anyhow::Result<()> {
    let all: Vec<String> = testbed.devices().await?.into_iter().map(|(uid, _)| uid).collect();
    // No program stands for this image, so the Pods stay.
    let spec = json!({"parallelism": all.len(), "flashjobPodImage": "registry.example/none:1"});
    create(testbed, &job("burst", &all, spec)).await?;
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    let of_job = ListParams::default().labels("app=burst");
    eventually("every device has its Pod", LIMIT, || async {
        Ok((pods.list(&of_job).await?.items.len() == all.len()).then_some(()))
    })
    .await?;
    let before = wire.connections();
    delete(testbed, "burst").await?;
    nothing_left(testbed).await?;
    let opened = wire.connections() - before;
    ensure!(opened <= FEW, "{opened} connections were opened for {} devices", all.len());
    Ok(())
}

async fn connections_are_cut_during_a_run(testbed: &Testbed, wire: &Wire) -> anyhow::Result<()> {
    let before = wire.connections();
    let counted = begin(testbed).await?;
    for flashed in [1, 4, 8] {
        updates(testbed, &counted, flashed).await?;
        wire.cut();
    }
    counted.end(testbed).await.map_err(|error| error.context("connections were cut"))?;
    let opened = wire.connections() - before;
    ensure!(opened >= 3, "three cuts closed no connection: only {opened} were opened");
    Ok(())
}

/// Only the operator's pings end a silent connection in time: requests that time out leave it in
/// use, and a watch is given up after 150 s, when the time for the job is over.
async fn connections_fall_silent_during_a_run(
    testbed: &Testbed,
    wire: &Wire,
) -> anyhow::Result<()> {
    let counted = begin(testbed).await?;
    pod_where(testbed, &counted.name, "it runs", runs).await?;
    let before = wire.connections();
    wire.freeze();
    counted.end(testbed).await.map_err(|error| error.context("connections were frozen"))?;
    ensure!(wire.connections() > before, "the frozen connections were still used");
    Ok(())
}

/// Returns how many connections a job opens without a fault: the fewest of two, as a busy machine
/// adds some. Has to come before the faults: some connections are replaced long after them.
async fn opened_without_a_fault(testbed: &Testbed, wire: &Wire) -> anyhow::Result<usize> {
    let runs =
        [opened_during_a_run(testbed, wire).await?, opened_during_a_run(testbed, wire).await?];
    let calm = runs[0].min(runs[1]);
    ensure!(calm <= FEW, "{calm} connections were opened without a fault");
    Ok(calm)
}

async fn the_api_server_asks_for_other_connections(
    testbed: &mut Testbed,
    wire: &Wire,
    calm: usize,
) -> anyhow::Result<()> {
    testbed.control_plane.stop_api_server().await?;
    testbed.control_plane.set_goaway_chance(GOAWAY_CHANCE);
    testbed.control_plane.start_api_server().await?;
    let mut opened = 0;
    for jobs in 1..=JOBS {
        opened += opened_during_a_run(testbed, wire).await?;
        if opened >= calm * jobs + REPLACED {
            return Ok(());
        }
    }
    bail!("{opened} connections were opened in {JOBS} jobs with GOAWAY, {calm} in one without")
}

/// Returns the number of connections that were opened from the first update to the end of a job.
/// Before the first update, the operator connects again after a fault.
async fn opened_during_a_run(testbed: &Testbed, wire: &Wire) -> anyhow::Result<usize> {
    let counted = begin(testbed).await?;
    updates(testbed, &counted, 1).await?;
    let before = wire.connections();
    counted.end(testbed).await?;
    Ok(wire.connections() - before)
}

async fn begin(testbed: &Testbed) -> anyhow::Result<Counted> {
    Counted::begin_with(testbed, FLASHED, json!({"parallelism": 6})).await
}
