//! Commands for those who look after a fleet: which devices there are, flash them, see how that
//! goes, and intervene.
//!
//! - [`devices`] lists devices as the operator sees them; [`inventory`] reads them.
//! - [`preview`] shows what the operator would create.
//! - [`flash`] makes a FlashJob, by a dialogue or from options; [`status`] shows one, and
//!   [`change`], [`retry`] and [`results`] work on those there are.
//! - [`watch`] follows one FlashJob until it ends; [`view`] words how it gets on, with [`pace`];
//!   [`table`] aligns columns.

pub mod change;
pub mod devices;
pub mod flash;
mod inventory;
mod pace;
pub mod preview;
mod prompt;
pub mod results;
pub mod retry;
pub mod status;
mod table;
mod view;
mod watch;

use flashjob_api::{FlashJob, FlashJobStatus, Phase};
use flashjob_operator::observed::Job;
use kube::api::{PatchParams, PostParams};
use kube::{Api, ResourceExt};

use crate::cluster::{Place, refused};
use crate::failure::{Code, Failure};

/// Name of the field manager that changes FlashJobs, in their managed fields.
const MANAGER: &str = "kubectl-flashjob";

/// Reason of a failure: there is no such FlashJob.
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
    let mut job = FlashJob::new(&answered.name_any(), answered.spec);
    job.metadata.namespace = answered.metadata.namespace;
    job.metadata.labels = answered.metadata.labels;
    job
}

impl Place {
    /// The FlashJobs of the namespace.
    pub fn jobs(&self) -> Api<FlashJob> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Reads a FlashJob that has to be there.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    async fn job(&self, name: &str) -> Result<FlashJob, Failure> {
        let reading = format!("read FlashJob {}/{name}", self.namespace);
        match self.jobs().get_opt(name).await {
            Ok(Some(job)) => Ok(job),
            Ok(None) => Err(self.no_job(name)),
            Err(error) => Err(refused(&reading, &error)),
        }
    }

    /// There is no such FlashJob here.
    fn no_job(&self, name: &str) -> Failure {
        let message = format!(
            "there is no FlashJob {}/{name}; kubectl flashjob status -A shows all",
            self.namespace
        );
        Failure::new(Code::Unavailable, NOT_FOUND, message)
    }
}

/// A number of devices in words.
fn devices_shown(count: usize) -> String {
    if count == 1 { "1 device".to_owned() } else { format!("{count} devices") }
}

/// Kind and name, as kubectl prints and takes them.
fn resource(job: &FlashJob) -> String {
    format!("flashjob.application.flashjob.nbfc.io/{}", job.name_any())
}

/// The phase in which a FlashJob is over; none while the operator works on it, or has not seen its
/// last change.
fn ended(job: &FlashJob) -> Option<Phase> {
    let status = job.status.as_ref().filter(|_| !is_behind(job))?;
    status.phase.filter(|phase| *phase != Phase::InProgress)
}

/// Returns true where the status is from before the last change of the spec.
fn is_behind(job: &FlashJob) -> bool {
    job.status.as_ref().is_none_or(|status| status.observed_generation < job.metadata.generation)
}

/// The status, where its results are those of the run that the spec asks for; none where they are
/// of the run before. The operator decides so which devices need no flash any more: a change such
/// as a pause leaves results as they are, although the status is behind for a moment.
fn results_of_run(job: &FlashJob) -> Option<&FlashJobStatus> {
    job.status.as_ref().filter(|_| Job::of(job.clone()).same_run())
}

/// Returns true where somebody has paused it.
fn is_suspended(job: &FlashJob) -> bool {
    job.spec.suspend == Some(true)
}

/// The command that ends a pause, as part of a sentence.
fn resuming(job: &FlashJob) -> String {
    let namespace = job.namespace().unwrap_or_default();
    format!("kubectl flashjob resume {} -n {namespace} lets it go on", job.name_any())
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
        assert!(is_behind(&job) && results_of_run(&job).is_none());
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
        assert!(is_behind(&job) && ended(&job).is_none() && results_of_run(&job).is_some());
        job.spec = spec("2");
        assert!(results_of_run(&job).is_none());
    }
}
