//! Reading of the files that a command names.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::failure::Failure;

/// Size of the largest file that is read, in bytes: more than a list of all Instances of a large
/// cluster. Without it, a source without an end would fill the memory.
const LIMIT: u64 = 256 << 20;

/// Reads a file of text.
///
/// # Errors
/// It cannot be read, is no UTF-8 text, or is larger than 256 MiB.
pub fn read_file(path: &Path) -> Result<String, Failure> {
    let file = File::open(path).map_err(|error| Failure::unreadable(path, &error))?;
    read_source(path, file)
}

/// Reads a source of text, whose name is for messages.
///
/// # Errors
/// As for [`read_file`].
pub fn read_source(name: &Path, source: impl Read) -> Result<String, Failure> {
    read_up_to(LIMIT, name, source)
}

/// Reads a source of text of at most `limit` bytes.
fn read_up_to(limit: u64, name: &Path, source: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::unreadable(name, &error))?;
    if bytes.len() as u64 > limit {
        let message =
            format!("{} is larger than {} MiB; name another file", name.display(), limit >> 20);
        return Err(Failure::usage(message));
    }
    String::from_utf8(bytes)
        .map_err(|error| Failure::unreadable(name, &io::Error::new(ErrorKind::InvalidData, error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_an_end_is_read_up_to_the_limit() {
        let (limit, name) = (1 << 20, Path::new("job.yaml"));
        let failure = read_up_to(limit, name, io::repeat(0)).expect_err("no end");
        assert_eq!(failure.message, "job.yaml is larger than 1 MiB; name another file");
        let largest = io::repeat(b' ').take(limit);
        let text = read_up_to(limit, name, largest).expect("a text");
        assert_eq!(text.len() as u64, limit);
    }
}
