//! Parameters of the requests that change FlashJobs and FlashRollouts.

use kube::api::{PatchParams, PostParams, ValidationDirective};

// The same name in all versions: server-side apply removes only those fields that this manager set
// before and now leaves out.
/// Name of the field manager in the managed fields of FlashJobs and FlashRollouts.
const MANAGER: &str = "kubectl-flashjob";

/// Kind of change: stored, or a dry run on the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The change is stored.
    Stored,
    /// The API server validates the change and returns what would be stored.
    DryRun,
}

impl Change {
    /// Returns the parameters of a create.
    pub fn posting(self) -> PostParams {
        PostParams { field_manager: Some(MANAGER.to_owned()), dry_run: self == Self::DryRun }
    }

    /// Returns the parameters of a server-side apply; `force` takes over fields of others.
    pub fn applying(self, force: bool) -> PatchParams {
        PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            dry_run: self == Self::DryRun,
            force,
            // The default of the API server, `Warn`, reports unknown fields in a header of the
            // response only.
            field_validation: Some(ValidationDirective::Strict),
        }
    }

    /// Returns the parameters of a merge patch.
    pub fn patching(self) -> PatchParams {
        PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            dry_run: self == Self::DryRun,
            ..PatchParams::default()
        }
    }
}
