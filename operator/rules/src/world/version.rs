//! Order of the resource versions of an object.

/// Returns true if `version` is later than `than`: resource versions are compared as numbers, and
/// one that is not a number counts as later.
pub(super) fn newer(version: &str, than: &str) -> bool {
    match (version.parse::<u128>(), than.parse::<u128>()) {
        (Ok(version), Ok(than)) => version > than,
        // Kubernetes calls them opaque; with etcd they are its revision, a number that grows.
        // Where one is no number, the state is applied rather than lost.
        _ => true,
    }
}
