//! Reads files of an image layout in a folder, each up to a size limit.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Names of the wanted files of a layout, each with its maximum size in bytes.
pub(super) type Wanted = BTreeMap<String, usize>;
/// Names of the files that exist in a layout, each with its content.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Returns the wanted files that exist in the folder.
pub(super) fn read(folder: &Path, limits: &Wanted) -> std::io::Result<Files> {
    let mut files = Files::new();
    for (name, limit) in limits {
        match open(&folder.join(name)) {
            Ok(file) => {
                files.insert(name.clone(), bounded(file, name, *limit)?);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(std::io::Error::new(error.kind(), format!("{name}: {error}")));
            }
        }
    }
    Ok(files)
}

/// Opens a regular file; anything else, such as a pipe, could block the reader.
pub(super) fn open(path: &Path) -> std::io::Result<std::fs::File> {
    // Opening a FIFO without a writer blocks, and would hold a thread forever.
    if std::fs::metadata(path)?.is_file() {
        std::fs::File::open(path)
    } else {
        Err(std::io::Error::other("not a regular file"))
    }
}

/// Reads a whole file; one that exceeds the limit is an error.
pub(super) fn bounded(file: impl Read, name: &str, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The file may grow while it is read, so its size from the file system is not trusted.
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        Err(std::io::Error::other(format!("{name} is larger than {limit} bytes")))
    } else {
        Ok(bytes)
    }
}
