//! Errors of requests to a registry, or to an image layout in its place.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;

use crate::Digest;

/// Reason why a registry, or an image layout in its place, did not return an artifact, or why a
/// registry rejected a push.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The HTTP client cannot be created.
    #[error("cannot set up the connection to registry {host}: {message}")]
    Configure {
        /// The registry.
        host: String,
        /// Cause of the error.
        message: String,
    },
    /// The registry does not answer.
    #[error("cannot reach registry {host}: {message}")]
    Reach {
        /// The registry.
        host: String,
        /// Cause of the error.
        message: String,
    },
    /// The registry rejects the credentials, or requires some.
    #[error(
        "registry {host} denies access to {what} ({status}): check the credentials that are \
         configured for this registry"
    )]
    Access {
        /// The registry.
        host: String,
        /// Name of the requested object.
        what: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// The registry wants the password to be sent to another host.
    #[error(
        "registry {host} asks to send the credentials to {realm}, which is another host; if that \
         is intended, add it to tokenHosts of this registry"
    )]
    ForeignRealm {
        /// The registry.
        host: String,
        /// Address that the password would be sent to.
        realm: String,
    },
    /// The registry wants the password to be sent without encryption.
    #[error(
        "registry {host} asks to send the credentials to {realm}, which does not use https, and \
         the configuration does not set plainHttp for that host"
    )]
    InsecureRealm {
        /// The registry.
        host: String,
        /// Address that the password would be sent to.
        realm: String,
    },
    /// The registry redirects to an address from which nothing is fetched.
    #[error("registry {host} redirects {what} to {location}, which is refused")]
    Redirect {
        /// The registry.
        host: String,
        /// Name of the requested object.
        what: String,
        /// Target of the redirect.
        location: String,
    },
    /// The registry does not have the object.
    #[error("registry {host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// Name of the requested object.
        what: String,
    },
    /// The registry answers with an error status.
    #[error("registry {host} answers {status} for {what}{}", asks_to_wait(*retry_after))]
    Status {
        /// The registry.
        host: String,
        /// Name of the requested object.
        what: String,
        /// The HTTP status.
        status: StatusCode,
        /// Delay that the registry asks for before the next request, at most an hour.
        retry_after: Option<Duration>,
    },
    /// Neither the registry nor its mirrors, tried before it, returned the object.
    #[error("{error}; mirrors tried before: {mirrors}")]
    Mirrored {
        /// Error of the registry itself.
        error: Box<RegistryError>,
        /// Errors of its mirrors.
        mirrors: String,
    },
    /// One of the places with signatures of a manifest cannot be read.
    #[error("{place} cannot be read: {error}")]
    Signatures {
        /// The place.
        place: String,
        /// Cause of the error.
        error: Box<RegistryError>,
    },
    /// The layout cannot be read.
    #[error("image layout {path} cannot be read: {message}", path = .path.display())]
    Layout {
        /// Folder or archive.
        path: PathBuf,
        /// Cause of the error.
        message: String,
    },
    /// The layout does not have the object.
    #[error("image layout {path} has no {what}", path = .path.display())]
    NotInLayout {
        /// Folder or archive.
        path: PathBuf,
        /// Name of the requested object.
        what: String,
    },
    /// The content does not have the expected form.
    #[error("{what} cannot be used: {message}")]
    Form {
        /// Name of the fetched object.
        what: String,
        /// Description of the fault.
        message: String,
    },
    /// The content does not have the expected digest.
    #[error("{what} has digest {actual}: it was changed in transit or in the registry")]
    Tampered {
        /// Name of the fetched object.
        what: String,
        /// Digest of the received bytes.
        actual: Digest,
    },
    /// The content is too large.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Name of the fetched object.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// There are more attachments than are searched for signatures, so it is unknown whether there
    /// is another signature.
    #[error(
        "{what} has at least {number} attachments, but only {limit} are examined, and none of \
         those suffices; delete attachments that are no longer needed, or copy the artifact to \
         another place without them and sign it there"
    )]
    TooManyAttachments {
        /// Name of the artifact.
        what: String,
        /// Minimum number of its attachments.
        number: usize,
        /// The limit, with its unit.
        limit: String,
    },
}

fn asks_to_wait(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| {
        format!(", and asks to retry after {} s", pause.as_secs())
    })
}

impl RegistryError {
    /// Returns true if a retry may succeed without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // A wrong host name is indistinguishable from a failing resolver, so it counts as
            // transient.
            Self::Reach { .. } => true,
            Self::Status { status, .. } => {
                // 429 is how public registries limit anonymous pulls; it passes after a while. 408
                // and 425 ask to repeat the request.
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT
                            | StatusCode::TOO_EARLY
                            | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            Self::Mirrored { error, .. } | Self::Signatures { error, .. } => error.is_transient(),
            _ => false,
        }
    }

    /// Returns the delay that the registry asks for before the next request, at most an hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.last() {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the last error, without those of the mirrors tried before it and without the place
    /// that it is about.
    #[must_use]
    pub fn last(&self) -> &Self {
        match self {
            Self::Mirrored { error, .. } | Self::Signatures { error, .. } => error.last(),
            error => error,
        }
    }

    /// Returns true if the error means that the object does not exist. Errors of mirrors tried
    /// before do not count.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self.last(), Self::NotFound { .. } | Self::NotInLayout { .. })
    }

    /// Adds the place with signatures that the error is about.
    pub(crate) fn at(self, place: String) -> Self {
        Self::Signatures { place, error: Box::new(self) }
    }

    /// Adds the errors of the mirrors that were tried before.
    pub(crate) fn after(self, mirrors: &[Self]) -> Self {
        if mirrors.is_empty() {
            return self;
        }
        let mirrors: Vec<String> = mirrors.iter().map(ToString::to_string).collect();
        Self::Mirrored { error: Box::new(self), mirrors: mirrors.join("; ") }
    }

    /// Returns the reason for the failure as one CamelCase word, as in a condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Configure { .. } => "RegistryMisconfigured",
            Self::Reach { .. } => "RegistryUnreachable",
            Self::Access { .. } => "AccessDenied",
            Self::ForeignRealm { .. } | Self::InsecureRealm { .. } => "TokenServiceRefused",
            Self::Redirect { .. } => "RedirectRefused",
            Self::NotFound { .. } | Self::NotInLayout { .. } => "NotFound",
            Self::Mirrored { error, .. } | Self::Signatures { error, .. } => error.reason(),
            Self::Layout { .. } => "LayoutUnreadable",
            Self::Status { .. } => "RegistryError",
            Self::Form { .. } => "UnexpectedContent",
            Self::Tampered { .. } => "DigestMismatch",
            Self::TooLarge { .. } => "TooLarge",
            Self::TooManyAttachments { .. } => "TooManyAttachments",
        }
    }
}
