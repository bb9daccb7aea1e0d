//! Reference to an artifact: the place to fetch it from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// `host/repository:tag`, `host/repository@sha256:…`, both together, the same after
/// `oci-layout:///path`, or `file://path` with an optional `@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Reference {
    /// In an OCI registry.
    Registry {
        /// Host, with its port if that is not the default.
        host: String,
        /// Repository on that host.
        repository: String,
        /// Tag; if a digest is present, only for people.
        tag: Option<String>,
        /// Digest of the manifest.
        digest: Option<Digest>,
    },
    /// In an OCI image layout: a folder, or a tar archive of one.
    Layout {
        /// Folder or archive.
        path: PathBuf,
        /// Tag: how the layout's index names the manifest.
        tag: Option<String>,
        /// Digest of the manifest.
        digest: Option<Digest>,
    },
    /// A component in a file, for development.
    File {
        /// The file.
        path: PathBuf,
        /// Digest of the file.
        digest: Option<Digest>,
    },
}

/// Error for text that is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a reference: {1}; expected host/repository:tag, host/repository@sha256:…, \
     oci-layout:///path:tag or file:///path"
)]
pub struct InvalidReference(String, &'static str);

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |why| Err(InvalidReference(text.to_owned(), why));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => match digest.parse() {
                Ok(digest) => (name, Some(digest)),
                Err(_) => {
                    return invalid(
                        "its digest is not sha256: followed by 64 lower-case hexadecimal digits",
                    );
                }
            },
            None => (text, None),
        };
        if let Some(path) = name.strip_prefix("file://") {
            return if path.is_empty() {
                invalid("it names no file")
            } else {
                Ok(Self::File { path: path.into(), digest })
            };
        }
        let layout = name.strip_prefix("oci-layout://");
        let name = layout.or(name.strip_prefix("oci://")).unwrap_or(name);
        // A colon before the last slash is part of a host or a folder.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return invalid(
                "its tag is not 1 to 128 letters, digits, dots, dashes and underscores",
            );
        }
        // There is no implied tag `latest`: what runs must be named.
        if tag.is_none() && digest.is_none() {
            return invalid("it has neither a tag nor a digest");
        }
        if layout.is_some() {
            // Trust patterns match the path as text, so two spellings of one folder must not
            // differ.
            let is_normalized =
                |path: &str| path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
            return match name.strip_prefix('/') {
                Some(path) if is_normalized(path) => {
                    Ok(Self::Layout { path: name.into(), tag, digest })
                }
                _ => {
                    invalid("its path does not begin with a slash, or has empty segments, . or ..")
                }
            };
        }
        let Some((host, repository)) = name.split_once('/') else {
            return invalid("it names no host");
        };
        // Docker takes such a name for a repository on Docker Hub; here a forgotten host is an
        // error.
        if !names_host(host) {
            return invalid("its host has neither a dot nor a port");
        }
        if !is_host(host) {
            return invalid("its host has characters that are not allowed in a host");
        }
        if !is_repository(repository) {
            return invalid(
                "its repository is not made of lower-case letters, digits and single separators",
            );
        }
        Ok(Self::Registry {
            // DNS ignores case, but trust patterns are compared byte by byte.
            host: host.to_ascii_lowercase(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }
}

impl Reference {
    /// Returns the digest, if the reference has one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Registry { digest, .. }
            | Self::Layout { digest, .. }
            | Self::File { digest, .. } => digest.as_ref(),
        }
    }

    /// Returns the tag, if the reference has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Registry { tag, .. } | Self::Layout { tag, .. } => tag.as_deref(),
            Self::File { .. } => None,
        }
    }

    /// Returns the same reference, pinned to this digest.
    #[must_use]
    pub fn pinned(&self, to: &Digest) -> Self {
        let mut reference = self.clone();
        match &mut reference {
            Self::Registry { digest, .. }
            | Self::Layout { digest, .. }
            | Self::File { digest, .. } => *digest = Some(to.clone()),
        }
        reference
    }

    /// Returns the name that trust entries are matched against: `host/repository`, or
    /// `oci-layout/path`. None for a file.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self {
            // Tag and digest are not part of the name: trust is in a repository and its signers.
            Self::Registry { host, repository, .. } => Some(format!("{host}/{repository}")),
            Self::Layout { path, .. } => Some(format!("{LAYOUT}{}", path.display())),
            Self::File { .. } => None,
        }
    }
}

/// Placeholder for the registry's host in the name of an image layout. It cannot be a real host
/// because it has no dot.
pub(crate) const LAYOUT: &str = "oci-layout";

pub(crate) fn is_host(host: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !host.is_empty() && host.bytes().all(good) && !host.starts_with(['.', '-', ':'])
}

/// Returns true if the first part of a name is a host, and not a folder on Docker Hub.
pub(crate) fn names_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Checks the form of `<name>` (OCI distribution specification 1.1, "Pulling manifests").
pub(crate) fn is_repository(repository: &str) -> bool {
    let segment = |segment: &str| {
        let ends = |letter: Option<char>| {
            letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        };
        let inner = segment.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
        });
        inner
            && ends(segment.chars().next())
            && ends(segment.chars().last())
            && !segment.contains("..")
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
        match self {
            Self::Registry { host, repository, .. } => write!(formatter, "{host}/{repository}")?,
            Self::Layout { path, .. } => write!(formatter, "{LAYOUT}://{}", path.display())?,
            Self::File { path, .. } => write!(formatter, "file://{}", path.display())?,
        }
        if let Some(tag) = self.tag() {
            write!(formatter, ":{tag}")?;
        }
        self.digest().map_or(Ok(()), |digest| write!(formatter, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_read_and_written_back() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [
            "harbor.nbfc.io/flashjob/esp32:0.1.0",
            "localhost:5000/a/b:latest",
            "file:///plugins/esp32.wasm",
            "oci-layout:///plugins/Esp32.tar:0.1.0",
        ] {
            for text in [text.to_owned(), format!("{text}@{digest}")] {
                assert_eq!(
                    text.parse::<Reference>().map(|reference| reference.to_string()),
                    Ok(text)
                );
            }
        }
        let read = format!("oci://harbor.nbfc.io/a@{digest}").parse::<Reference>();
        assert_eq!(
            read.map(|reference| reference.to_string()),
            Ok(format!("harbor.nbfc.io/a@{digest}"))
        );
    }

    #[test]
    fn a_layout_is_named_by_its_path_as_written() {
        let read =
            "oci-layout:///plugins:old/Esp32.tar:0.1.0".parse::<Reference>().expect("a reference");
        assert_eq!(
            (read.tag(), read.name().as_deref()),
            (Some("0.1.0"), Some("oci-layout/plugins:old/Esp32.tar"))
        );
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
            "localhost:5000/a",
            "oci-layout:///plugins/esp32",
            "oci-layout://plugins/esp32:1",
            "oci-layout:///plugins/../esp32:1",
            "oci-layout:///plugins//esp32:1",
            "oci-layout:///:1",
            "",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
