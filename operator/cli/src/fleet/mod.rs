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

use flashjob_api::{FlashJob, Phase};
use kube::api::{PatchParams, PostParams};
use kube::{Api, ResourceExt};

use crate::cluster::{Place, refused};
use crate::failure::{Code, Failure};

/// Who changes FlashJobs, in their managed fields.
const MANAGER: &str = "kubectl-flashjob";

/// Whether a change is stored, or only looked at by the API server.
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

/// What a dry run answered, without what the API server sets: a FlashJob that can be applied.
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
        Failure::new(Code::Unavailable, "NotFound", message)
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
    let status = job.status.as_ref()?;
    let seen = status.observed_generation >= job.metadata.generation;
    status.phase.filter(|phase| seen && *phase != Phase::InProgress)
}
