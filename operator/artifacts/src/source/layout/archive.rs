//! Reads files of an image layout from a tar archive, optionally compressed with gzip, without
//! unpacking it to disk. Each call reads the archive from its beginning, and at most
//! [`ARCHIVE_BYTES`] of it.

use std::io::{BufReader, Read, Seek, Take};
use std::ops::ControlFlow;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::blobs::SmallBlobs;
use super::files::{Files, Wanted, bounded, open};

/// Maximum number of unpacked bytes that are read from an archive. It may hold several plugins,
/// and a compressed one could be endless.
const ARCHIVE_BYTES: u64 = 256 << 20;
/// RFC 1952, section 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Returns the wanted files of the archive. Other names, links and devices are skipped.
pub(super) fn read(path: &Path, limits: &Wanted) -> std::io::Result<Files> {
    let mut files = Files::new();
    look_through(path, |name, file| {
        // An archive can hold a name twice; the first one counts, so that the search can end
        // early.
        if let Some(limit) = limits.get(name).filter(|_| !files.contains_key(name)) {
            // The crate ends a file where the archive ends, and half a manifest would not be
            // recognized as a signature.
            let size = file.size();
            let bytes = bounded(file, name, *limit)?;
            if (bytes.len() as u64) < size {
                return Err(std::io::Error::other(format!("the archive ends within {name}")));
            }
            files.insert(name.to_owned(), bytes);
        }
        Ok(if files.len() == limits.len() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(files)
}

/// Returns the small blobs of the archive.
pub(super) fn small_blobs(path: &Path) -> std::io::Result<Files> {
    let mut blobs = SmallBlobs::default();
    look_through(path, |name, file| {
        if blobs.takes(name, file.size()) {
            blobs.add(name, file)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(blobs.into_files())
}

/// Regular file of the archive.
type Entry<'a> = tar::Entry<'a, Take<Box<dyn Read>>>;

/// Calls `show` for each regular file with its name, until it breaks.
fn look_through(
    path: &Path,
    mut show: impl FnMut(&str, Entry<'_>) -> std::io::Result<ControlFlow<()>>,
) -> std::io::Result<()> {
    // The limit applies to unpacked bytes: gzip compresses zeros a thousandfold.
    let mut archive = tar::Archive::new(unpacked(path)?.take(ARCHIVE_BYTES));
    // Raw: the crate reads long names and other extensions into memory completely, and none of the
    // wanted files needs them.
    let beyond_limit = |error: &str| {
        let mebibytes = ARCHIVE_BYTES >> 20;
        std::io::Error::other(format!("{error}; at most {mebibytes} MiB of it are read"))
    };
    for entry in archive.entries()?.raw(true) {
        let entry = entry.map_err(|error| beyond_limit(&error.to_string()))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        // Links are skipped, because one could point outside the layout.
        if entry.header().entry_type().is_file()
            && show(name.trim_start_matches("./"), entry)?.is_break()
        {
            return Ok(());
        }
    }
    // For the crate, a limit between two entries is the end of the archive. A signature may follow.
    if archive.into_inner().limit() == 0 {
        return Err(beyond_limit("the archive is larger than the limit"));
    }
    Ok(())
}

fn unpacked(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = open(path)?;
    let mut begin = Vec::new();
    Read::by_ref(&mut file).take(GZIP.len() as u64).read_to_end(&mut begin)?;
    // The compression is recognized by content, because the name of an archive is up to its
    // author.
    file.rewind()?;
    let file = BufReader::new(file);
    // A gzip file may have several members (RFC 1952, section 2.2).
    Ok(if begin == GZIP { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}
