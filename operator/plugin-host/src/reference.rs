//! Where a plugin comes from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// `host/repository:tag`, `host/repository@sha256:…`, both together, or `file://path` with an optional `@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reference {
    /// In an OCI registry.
    Registry {
        /// Host, with its port where it is not the usual one.
        host: String,
        /// Repository on that host.
        repository: String,
        /// Tag; with a digest beside it only for people.
        tag: Option<String>,
        /// Digest of the manifest.
        digest: Option<Digest>,
    },
    /// A component in a file: for development and where there is no registry.
    File {
        /// The file.
        path: PathBuf,
        /// Digest of the file.
        digest: Option<Digest>,
    },
}

/// Not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a reference: {1}; expected host/repository:tag, host/repository@sha256:… or file:///path")]
pub struct InvalidReference(String, &'static str);

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |why| Err(InvalidReference(text.to_owned(), why));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => match digest.parse() {
                Ok(digest) => (name, Some(digest)),
                Err(_) => return invalid("its digest is not sha256: and 64 hexadecimal digits in lower case"),
            },
            None => (text, None),
        };
        if let Some(path) = name.strip_prefix("file://") {
            return if path.is_empty() { invalid("it names no file") } else { Ok(Self::File { path: path.into(), digest }) };
        }
        let name = name.strip_prefix("oci://").unwrap_or(name);
        let Some((host, rest)) = name.split_once('/') else { return invalid("it names no host") };
        if !host.contains(['.', ':']) && host != "localhost" {
            return invalid("its host has neither a dot nor a port");
        }
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        if !is_host(host) {
            return invalid("its host has letters that no host has");
        }
        if !is_repository(repository) {
            return invalid("its repository is not made of lower-case letters, digits and single separators");
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return invalid("its tag is not 1 to 128 letters, digits, dots, dashes and underscores");
        }
        if tag.is_none() && digest.is_none() {
            return invalid("it has neither a tag nor a digest");
        }
        Ok(Self::Registry { host: host.to_ascii_lowercase(), repository: repository.to_owned(), tag, digest })
    }
}

fn is_host(host: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    host.bytes().all(good) && !host.starts_with(['.', '-', ':'])
}

/// OCI distribution specification 1.1, "Pulling manifests": the form of `<name>`.
fn is_repository(repository: &str) -> bool {
    let segment = |segment: &str| {
        let ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        let inner = segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
        inner && ends(segment.chars().next()) && ends(segment.chars().last()) && !segment.contains("..")
    };
    repository.len() <= 255 && repository.split('/').all(segment)
}

fn is_tag(tag: &str) -> bool {
    let inner = tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    inner && !tag.is_empty() && tag.len() <= 128 && !tag.starts_with(['.', '-'])
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = match self {
            Self::Registry { host, repository, tag, digest } => {
                write!(formatter, "{host}/{repository}")?;
                if let Some(tag) = tag {
                    write!(formatter, ":{tag}")?;
                }
                digest
            }
            Self::File { path, digest } => {
                write!(formatter, "file://{}", path.display())?;
                digest
            }
        };
        digest.as_ref().map_or(Ok(()), |digest| write!(formatter, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_read_and_written_back() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in ["harbor.nbfc.io/flashjob/esp32:0.1.0", "localhost:5000/a/b:latest", "file:///plugins/esp32.wasm"] {
            for text in [text.to_owned(), format!("{text}@{digest}")] {
                assert_eq!(text.parse::<Reference>().map(|reference| reference.to_string()), Ok(text));
            }
        }
        let read = format!("oci://harbor.nbfc.io/a@{digest}").parse::<Reference>();
        assert_eq!(read.map(|reference| reference.to_string()), Ok(format!("harbor.nbfc.io/a@{digest}")));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        for text in [
            "esp32:1",
            "library/esp32:1",
            "harbor.nbfc.io/a",
            "harbor.nbfc.io/A:1",
            "harbor.nbfc.io/a/../b:1",
            "harbor.nbfc.io/a:1@sha256:x",
            "file://",
            "user@harbor.nbfc.io/a:1",
            "harbor.nbfc.io/a:-x",
            "",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
