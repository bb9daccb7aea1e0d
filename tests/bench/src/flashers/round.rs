//! One round: a process for each device, whose connections back are all released at once.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use flashjob_simulators::devices::{Behaviour, Report};
use flashjob_testbed::process::{eventually, sibling};
use jiff::Timestamp;
use tokio::process::{Child, Command};

use super::place::{FIRMWARE, Place};
use crate::usage::Usage;

/// Timeout of a round.
const LIMIT: Duration = Duration::from_secs(300);

/// Programs that send firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Only sends: the baseline.
    Least,
    /// The flash program.
    Flasher,
}

impl Sender {
    /// Both, the baseline first.
    pub const ALL: [Self; 2] = [Self::Least, Self::Flasher];

    /// Returns the command for a device's process.
    fn command(self, place: &Place, index: usize, report: &Report) -> anyhow::Result<Command> {
        let address = Place::address(index);
        let mut command = match self {
            Self::Least => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("send").arg("--file").arg(&place.file);
                command
            }
            Self::Flasher => {
                let mut command = Command::new(sibling("flashjob-flasher")?);
                let log = place.folder.path().join(format!("termination-log-{index}"));
                command.args(["ota", "--firmware", FIRMWARE, "--device", "esp32", "--wait", "0s"]);
                command.arg("--registry-directory").arg(&place.access);
                command.arg("--certificates").arg(place.folder.path().join("none"));
                command.args(["--external-ip", &address, "--callback-timeout", "120s"]);
                command.arg("--termination-log").arg(log);
                command
            }
        };
        command
            .args(["--listen", &address, "--port", &place.port.to_string()])
            .args(["--host-endpoint", &report.endpoint])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }
}

/// Starts a process for each device, waits until every device has its request, and releases all
/// connections back. Returns the time from then until the last device runs the firmware.
pub async fn measure(place: &Place, sender: Sender) -> anyhow::Result<Duration> {
    let before = place.fleet.reports();
    let mut children = start(place, sender).await?;
    let released = Timestamp::now();
    place.fleet.hold(false);
    for child in &mut children {
        let status = tokio::time::timeout(LIMIT, child.wait()).await.context("it goes on")??;
        anyhow::ensure!(status.success(), "{sender:?} ended with {status}");
    }
    let after = eventually("every device runs the firmware", LIMIT, || async {
        let after = place.fleet.reports();
        let mut pairs = before.iter().zip(&after);
        Ok(pairs.all(|(before, after)| after.flashed == before.flashed + 1).then_some(after))
    })
    .await?;
    let last = after.iter().filter_map(|report| report.flashed_at).max();
    let took = last.context("no device was flashed")?.duration_since(released);
    Ok(took.try_into()?)
}

/// Starts the processes, and waits until every device has its request and holds its connection.
async fn start(place: &Place, sender: Sender) -> anyhow::Result<Vec<Child>> {
    place.fleet.hold(true);
    let before = place.fleet.reports();
    let children = before
        .iter()
        .enumerate()
        .map(|(index, report)| Ok(sender.command(place, index, report)?.spawn()?));
    let children = children.collect::<anyhow::Result<Vec<_>>>()?;
    eventually("every device was asked", LIMIT, || async {
        let after = place.fleet.reports();
        let mut pairs = before.iter().zip(&after);
        Ok(pairs.all(|(before, after)| after.updates > before.updates).then_some(()))
    })
    .await?;
    Ok(children)
}

/// Returns the peak of a flash program's resident memory, in KiB, with a slow device.
pub async fn memory(place: &Place, reads_after: Duration) -> anyhow::Result<u64> {
    let report = place.fleet.reports().into_iter().next().context("no device")?;
    let transfer_ms = u64::try_from(reads_after.as_millis())?;
    let slow = Behaviour { transfer_ms, ..Behaviour::default() };
    anyhow::ensure!(place.fleet.behave(&report.id, slow), "no device {}", report.id);
    let mut children = start(place, Sender::Flasher).await?;
    let child = children.first_mut().context("no process")?;
    let process = child.id();
    place.fleet.hold(false);
    let (started_at, mut most) = (Instant::now(), 0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        anyhow::ensure!(started_at.elapsed() < LIMIT, "the flash program goes on");
        // The kernel keeps the peak, but not of a process that has just ended.
        most = Usage::of(process).map_or(most, |usage| usage.peak_kib.max(most));
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    anyhow::ensure!(status.success(), "the flash program ended with {status}");
    Ok(most)
}
