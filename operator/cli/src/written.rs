//! Files that are written atomically.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::Builder;

use crate::failure::{Code, Failure};

/// Permission to replace a file that already exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// An existing file stays, and the write fails.
    Keep,
    /// An existing file is replaced.
    Replace,
}

/// Writes a file under a temporary name, and then renames it.
///
/// # Errors
/// The file cannot be written, or exists and must stay.
pub fn write(path: &Path, bytes: &[u8], existing: Existing) -> Result<(), Failure> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = |error: std::io::Error| Failure::unwritable(path, &error);
    // In the folder of the target, because a rename cannot cross file systems. Temporary files
    // have mode 0600 by default, which the rename would keep.
    let mut file = Builder::new()
        .prefix(".flashjob-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(unwritable)?;
    file.write_all(bytes).map_err(unwritable)?;
    let persisted = match existing {
        // Fails if the file exists at this moment; a check before the write would leave a race.
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    match persisted {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            let message =
                format!("{} already exists; name another file, or add --force", path.display());
            Err(Failure::new(Code::Usage, "FileExists", message))
        }
        Err(error) => Err(unwritable(error.error)),
    }
}
