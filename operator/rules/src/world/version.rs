//! Order of the versions of an object in the API server.

/// Returns true if one version of an object is later than another: versions grow as numbers do;
/// what cannot be compared is taken.
pub(super) fn newer(version: &str, than: &str) -> bool {
    match (version.parse::<u128>(), than.parse::<u128>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => true,
    }
}
