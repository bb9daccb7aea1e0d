//! Files of an image layout in a folder, each of which is read up to a limit.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Files that are wanted of a layout: their names, and the bytes that each may have.
pub(super) type Wanted = BTreeMap<String, usize>;
/// Files that were found in a layout: their names and bytes.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The wanted files that are in the folder.
pub(super) fn read(folder: &Path, wanted: &Wanted) -> std::io::Result<Files> {
    let mut files = Files::new();
    for (name, limit) in wanted {
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

/// Opens a file, and nothing that would make the reader wait.
pub(super) fn open(path: &Path) -> std::io::Result<std::fs::File> {
    if std::fs::metadata(path)?.is_file() {
        std::fs::File::open(path)
    } else {
        Err(std::io::Error::other("it is no file"))
    }
}

/// Reads all of a file that is no larger than it may be.
pub(super) fn bounded(file: impl Read, name: &str, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        Err(std::io::Error::other(format!("{name} is larger than {limit} bytes")))
    } else {
        Ok(bytes)
    }
}
