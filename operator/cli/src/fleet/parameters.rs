//! Parameters of the requests that change FlashJobs and FlashRollouts.

use kube::api::{PatchParams, PostParams, ValidationDirective};

/// Name of the field manager that changes FlashJobs and FlashRollouts, in their managed fields.
const MANAGER: &str = "kubectl-flashjob";

/// Kind of change: stored, or only looked at by the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is stored.
    Stored,
    /// The API server checks it and answers what would be stored.
    DryRun,
}

impl Change {
    /// Parameters of a create.
    pub fn posting(self) -> PostParams {
        PostParams { field_manager: Some(MANAGER.to_owned()), dry_run: self == Self::DryRun }
    }

    /// Parameters of a server-side apply; `force` takes over fields of others.
    pub fn applying(self, force: bool) -> PatchParams {
        PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            dry_run: self == Self::DryRun,
            force,
            field_validation: Some(ValidationDirective::Strict),
        }
    }

    /// Parameters of a merge patch.
    pub fn patching(self) -> PatchParams {
        PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            dry_run: self == Self::DryRun,
            ..PatchParams::default()
        }
    }
}
