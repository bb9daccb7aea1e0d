//! Commands for those who look after a fleet: which devices there are, flash them, see how that
//! goes, and intervene.
//!
//! - [`devices`] lists devices as the operator sees them; [`inventory`] reads them.
//! - [`preview`] shows what the operator would create.
//! - [`flash`] makes a FlashJob, by a dialogue or from options; [`status`] shows one, and
//!   [`change`], [`retry`] and [`results`] work on those there are.
//! - [`rollout`] has the commands for FlashRollouts.
//! - [`workload`] is what FlashJobs and FlashRollouts have in common; [`job`] is a FlashJob so.
//!   [`watch`] follows one of them until it ends; [`view`] words how a FlashJob gets on, with
//!   [`pace`]; [`table`] aligns columns, [`manifest`] reads objects from files.

pub mod change;
pub mod devices;
pub mod flash;
mod inventory;
mod job;
mod manifest;
mod pace;
pub mod preview;
mod prompt;
pub mod results;
pub mod retry;
pub mod rollout;
pub mod status;
mod table;
mod view;
mod watch;
pub mod workload;

use flashjob_api::{FlashJob, FlashJobStatus, Phase};
use flashjob_rules::flashjob::observed::Job;
use kube::api::{ObjectMeta, PatchParams, PostParams, ValidationDirective};

use workload::Workload;

/// Name of the field manager that changes FlashJobs and FlashRollouts, in their managed fields.
const MANAGER: &str = "kubectl-flashjob";

/// Reason of a failure: there is no such object.
const NOT_FOUND: &str = "NotFound";

/// Kind of change: stored, or only looked at by the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It is stored.
    Stored,
    /// The API server checks it and answers what would be stored.
    DryRun,
}

impl Change {
    /// Parameters of a create.
    fn posting(self) -> PostParams {
        PostParams { field_manager: Some(MANAGER.to_owned()), dry_run: self == Self::DryRun }
    }

    /// Parameters of a server-side apply; `force` takes over fields of others.
    fn applying(self, force: bool) -> PatchParams {
        PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            dry_run: self == Self::DryRun,
            force,
            field_validation: Some(ValidationDirective::Strict),
        }
    }

    /// Parameters of a merge patch.
    fn patching(self) -> PatchParams {
        PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            dry_run: self == Self::DryRun,
            ..PatchParams::default()
        }
    }
}

/// Returns the answer of a dry run without what the API server sets: a FlashJob that can be
/// applied.
fn applicable(answered: FlashJob) -> FlashJob {
    FlashJob { metadata: written(answered.metadata), spec: answered.spec, status: None }
}

/// Metadata without what the API server sets.
fn written(metadata: ObjectMeta) -> ObjectMeta {
    let ObjectMeta { name, namespace, labels, annotations, .. } = metadata;
    ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() }
}

/// A number of devices in words.
fn devices_shown(count: usize) -> String {
    if count == 1 { "1 device".to_owned() } else { format!("{count} devices") }
}

/// The phase in which a FlashJob is over; none while the operator works on it, or has not seen its
/// last change.
fn ended(job: &FlashJob) -> Option<Phase> {
    let status = job.status.as_ref().filter(|_| !job.is_behind())?;
    status.phase.filter(|phase| *phase != Phase::InProgress)
}

/// The status, where its results are those of the run that the spec asks for; none where they are
/// of the run before. The operator decides so which devices need no flash any more: a change such
/// as a pause leaves results as they are, although the status is behind for a moment.
fn results_of_run(job: &FlashJob) -> Option<&FlashJobStatus> {
    job.status.as_ref().filter(|_| Job::of(job.clone()).same_run())
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashJobSpec;

    use super::*;

    #[test]
    fn results_count_for_the_run_that_they_are_of_and_for_no_other() {
        let spec = |version: &str| FlashJobSpec {
            uuid: vec!["a".to_owned()],
            firmware: "a:1".to_owned(),
            version: version.to_owned(),
            ..FlashJobSpec::default()
        };
        let mut job = FlashJob::new("job", spec("1"));
        assert!(job.is_behind() && results_of_run(&job).is_none());
        job.metadata.generation = Some(1);
        job.status = Some(FlashJobStatus {
            phase: Some(Phase::Completed),
            run: job.spec.effective().ok().map(|spec| spec.run),
            observed_generation: Some(1),
            ..FlashJobStatus::default()
        });
        assert!(ended(&job).is_some() && results_of_run(&job).is_some());
        // A pause that the operator has not seen.
        job.metadata.generation = Some(2);
        job.spec.suspend = Some(true);
        assert!(job.is_behind() && ended(&job).is_none() && results_of_run(&job).is_some());
        job.spec = spec("2");
        assert!(results_of_run(&job).is_none());
    }
}
