//! `rollout history`: the current run, and earlier ones.

use clap::Args;
use flashjob_api::{FlashRollout, PastRun};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use super::state::status;
use super::view::{between, state};
use crate::cluster::Scope;
use crate::failure::Failure;
use crate::fleet::table::table;
use crate::fleet::workload::{full_name, resource};
use crate::output::Output;
use crate::report::Report;

/// Show runs.
#[derive(Debug, Args)]
pub struct History {
    /// Name of the FlashRollout.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    scope: Scope,
}

/// Lists the runs in the status, the latest first.
///
/// # Errors
/// There is no such FlashRollout, or it cannot be read.
pub async fn run(command: &History) -> Result<Report, Failure> {
    let place = command.scope.place().await?;
    let rollout: FlashRollout = place.read(&command.name).await?;
    let runs = runs(&rollout);
    let text = match runs.as_slice() {
        [] => format!("FlashRollout {} has had no run yet.", full_name(&rollout)),
        runs => rows(runs, Timestamp::now()),
    };
    let json = json!({
        "namespace": rollout.namespace(), "name": rollout.name_any(), "runs": runs,
    });
    Ok(Report::new(text, json).with(Output::Name, resource(&rollout)))
}

/// Returns the current run, then those of the history.
fn runs(rollout: &FlashRollout) -> Vec<PastRun> {
    let status = status(rollout);
    let now = status.run.map(|run| PastRun {
        run,
        firmware: status
            .firmware
            .map_or_else(|| rollout.spec.firmware.clone(), |firmware| firmware.reference),
        version: status.version.unwrap_or_else(|| rollout.spec.version.clone()),
        phase: state(rollout),
        counts: status.counts.unwrap_or_default(),
        start_time: status.start_time,
        end_time: status.completion_time,
    });
    now.into_iter().chain(status.history).collect()
}

fn rows(runs: &[PastRun], now: Timestamp) -> String {
    let row = |run: &PastRun| {
        let start = run.start_time.as_ref().map(|time| time.0);
        let end = run.end_time.as_ref().map_or(now, |time| time.0);
        [
            run.run.clone(),
            run.phase.clone(),
            run.version.clone(),
            format!("{}/{}", run.counts.completed, run.counts.planned),
            (run.counts.failed + run.counts.regressed).to_string(),
            start
                .map(|start| start.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
                .unwrap_or_default(),
            start.map(|start| between(start, end)).unwrap_or_default(),
            run.firmware.clone(),
        ]
    };
    let headings =
        ["RUN", "PHASE", "VERSION", "COMPLETED", "FAILED", "STARTED", "TOOK", "FIRMWARE"];
    table(headings, runs.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::super::tests::rollout;
    use super::*;

    #[test]
    fn the_run_that_there_is_comes_before_those_that_were() {
        let mut rollout = rollout();
        let past = PastRun {
            run: "ffffff".to_owned(),
            phase: "Superseded".to_owned(),
            ..PastRun::default()
        };
        rollout.status.as_mut().expect("a status").history = vec![past];
        let runs = runs(&rollout);
        let text = rows(&runs, Timestamp::UNIX_EPOCH);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("0a1b2c   Soaking      2         2/20"), "{text}");
        assert!(lines[2].starts_with("ffffff   Superseded"), "{text}");
        rollout.status = None;
        assert!(super::runs(&rollout).is_empty());
    }
}
