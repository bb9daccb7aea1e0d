//! `rollout`: commands for FlashRollouts, which flash a fleet batch by batch.
//!
//! - [`create`] applies a FlashRollout from options, which [`selection`], [`batches`] and
//!   [`window`] parse; [`preview`] shows the devices and batches of a run.
//! - [`approve`] lets a batch start, [`change`] ends a run or retries devices; pausing and
//!   resuming share the code of FlashJobs.
//! - [`state`] interprets a status, [`view`] formats it, [`history`] shows earlier runs;
//!   [`workload`] implements the interface that FlashRollouts share with FlashJobs.

mod approve;
mod batches;
mod change;
mod create;
mod history;
mod preview;
mod selection;
mod state;
pub(super) mod view;
mod window;
mod workload;

use clap::Subcommand;
use flashjob_api::FlashRollout;

use super::change as suspension;
use super::status::Status;
use crate::failure::Failure;
use crate::interruption::Interruption;
use crate::output::Output;
use crate::report::Report;

pub use approve::unapproved;

/// Commands for FlashRollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Create a FlashRollout, or change one: which devices, which firmware, in which batches.
    Create(Box<create::Create>),
    /// Show which devices would be flashed, and in which batch.
    Preview(preview::Preview),
    /// Show how FlashRollouts get on; with -w until they end.
    Status(Status),
    /// Let a batch start that waits for approval.
    Approve(approve::Approve),
    /// Start no more devices of FlashRollouts; those in flight finish.
    Pause(suspension::Pause),
    /// Let paused FlashRollouts go on.
    Resume(suspension::Resume),
    /// End the run of FlashRollouts; devices in flight finish.
    Abort(change::Abort),
    /// Try failed, absent and regressed devices of a run again.
    Retry(change::Retry),
    /// Show the run of a FlashRollout, and those before it.
    History(history::History),
}

/// Runs a command.
///
/// # Errors
/// Same as for the commands.
pub async fn run(
    command: RolloutCommand,
    output: Output,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    match command {
        RolloutCommand::Create(command) => create::run(&command, interruption).await,
        RolloutCommand::Preview(command) => preview::run(&command).await,
        RolloutCommand::Status(command) => {
            command.of::<FlashRollout>(output, interruption, view::list).await
        }
        RolloutCommand::Approve(command) => approve::run(&command).await,
        RolloutCommand::Pause(command) => suspension::pause::<FlashRollout>(&command).await,
        RolloutCommand::Resume(command) => suspension::resume::<FlashRollout>(&command).await,
        RolloutCommand::Abort(command) => change::abort(&command, interruption).await,
        RolloutCommand::Retry(command) => change::retry(&command, interruption).await,
        RolloutCommand::History(command) => history::run(&command).await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flashjob_api::{
        BatchSpec, BatchState, BatchStatus, FailedDevice, FlashRolloutSpec, FlashRolloutStatus,
        RolloutCounts, RolloutPhase,
    };
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    /// Returns a FlashRollout whose first batch soaks, and whose second batch needs approval.
    pub fn rollout() -> FlashRollout {
        let batch = |name: &str, approval| BatchSpec {
            name: name.to_owned(),
            approval,
            ..BatchSpec::default()
        };
        let mut spec = FlashRolloutSpec {
            firmware: "r.io/f:2".to_owned(),
            version: "2".to_owned(),
            batches: Some(vec![batch("canary", None), batch("ten", Some(true))]),
            ..FlashRolloutSpec::default()
        };
        spec.selector.all = Some(true);
        let counts = |planned, completed, failed, in_flight| RolloutCounts {
            planned,
            completed,
            failed,
            in_flight,
            ..RolloutCounts::default()
        };
        let state = |name: &str, planned| BatchStatus {
            name: name.to_owned(),
            counts: counts(planned, 0, 0, 0),
            ..BatchStatus::default()
        };
        let canary = BatchStatus {
            state: BatchState::Soaking,
            counts: counts(1, 0, 1, 0),
            soak_until: Timestamp::from_second(1_600).ok().map(Time),
            ..state("canary", 1)
        };
        let failed = FailedDevice {
            instance: "akri-7".to_owned(),
            batch: "canary".to_owned(),
            reason: "FlashTimeout".to_owned(),
            message: Some("too slow".to_owned()),
        };
        let status = FlashRolloutStatus {
            phase: Some(RolloutPhase::Soaking),
            run: Some("0a1b2c".to_owned()),
            fingerprint: spec.effective().ok().map(|spec| spec.fingerprint),
            counts: Some(counts(20, 2, 1, 2)),
            reasons: BTreeMap::from([("FlashTimeout".to_owned(), 1)]),
            batches: vec![canary, state("ten", 2), state("rest", 17)],
            failed: vec![failed],
            observed_generation: Some(1),
            ..FlashRolloutStatus::default()
        };
        let mut rollout = FlashRollout::new("hall", spec);
        rollout.metadata.namespace = Some("fleet".to_owned());
        rollout.metadata.generation = Some(1);
        rollout.status = Some(status);
        rollout
    }
}
