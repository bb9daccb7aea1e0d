//! Demonstration of the main job: a FlashJob for all devices of a namespace, its progress, and a
//! table of the devices afterwards.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use flashjob_api::{FlashJob, Phase};
use flashjob_simulators::devices::Report;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::Fleet;
use crate::testbed::FLASHER_IMAGE;

/// Flashes all devices of a namespace with firmware 0.2.0, and prints the progress.
///
/// # Errors
/// At the end a device does not run the new firmware, or was flashed more than once.
pub async fn main_job(client: &Client, fleet: &Fleet, namespace: &str) -> anyhow::Result<()> {
    let devices = fleet.devices(client, namespace).await?;
    let uids: Vec<&String> = devices.iter().map(|(uid, _)| uid).collect();
    let job = json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob",
        "metadata": {"name": "demo", "namespace": namespace},
        "spec": {
            "uuid": uids, "firmware": "harbor.nbfc.io/nubificus/firmware:0.2.0",
            "version": "0.2.0", "flashjobPodImage": FLASHER_IMAGE,
        },
    });
    let jobs: Api<FlashJob> = Api::namespaced(client.clone(), namespace);
    let begin = jiff::Timestamp::now();
    jobs.patch("demo", &PatchParams::apply("demo"), &Patch::Apply(job)).await?;
    println!("FlashJob {namespace}/demo: {} devices", devices.len());
    let attempts = follow(&jobs).await?;
    table(&devices, &fleet.reports().await?, &attempts, begin)
}

/// Prints progress until the job has ended; returns the number of attempts of each device.
async fn follow(jobs: &Api<FlashJob>) -> anyhow::Result<HashMap<String, u32>> {
    let mut attempts = HashMap::new();
    let mut last_line = String::new();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(600) {
        let status = jobs.get("demo").await?.status.unwrap_or_default();
        for device in &status.devices {
            attempts.insert(device.uid.clone(), device.attempt);
        }
        let line = status.message.clone().unwrap_or_default();
        if line != last_line {
            println!("  {:5.1} s  {}", begin.elapsed().as_secs_f32(), line);
            last_line = line;
        }
        if matches!(status.phase, Some(Phase::Completed | Phase::Failed)) {
            return Ok(attempts);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    bail!("the job did not end within 10 minutes")
}

fn table(
    before: &[(String, Report)],
    after: &[Report],
    attempts: &HashMap<String, u32>,
    begin: jiff::Timestamp,
) -> anyhow::Result<()> {
    println!(
        "\n{:<12} {:<10} {:<8} {:<8} {:>8} {:>8}",
        "DEVICE", "TYPE", "BEFORE", "AFTER", "ATTEMPTS", "SECONDS"
    );
    let mut current = 0;
    for (uid, old) in before {
        let new = after.iter().find(|report| report.id == old.id).context("a device is gone")?;
        let seconds = new
            .flashed_at
            .map(|at| format!("{:.1}", at.duration_since(begin).as_secs_f32()))
            .unwrap_or_default();
        let attempts = attempts.get(uid).copied().unwrap_or(0);
        println!(
            "{:<12} {:<10} {:<8} {:<8} {:>8} {:>8}",
            new.id, new.device, old.version, new.version, attempts, seconds
        );
        current += usize::from(new.version == "0.2.0" && new.flashed == 1);
    }
    println!("\n{current} of {} devices run 0.2.0, each flashed once", before.len());
    if current == before.len() { Ok(()) } else { bail!("not every device runs the new firmware") }
}
