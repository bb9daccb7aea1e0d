//! Errors of a registry, or of an image layout in its place, that did not do what was asked for.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;

use crate::Digest;

/// Reason why a registry, or an image layout in its place, gave no component, or a registry took
/// none.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The client cannot be made.
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
    /// The registry refuses the credentials, or wants some.
    #[error(
        "registry {host} refuses access to {what} ({status}): check the credentials that are \
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
    /// The registry wants the password sent elsewhere.
    #[error(
        "registry {host} asks for credentials on behalf of {realm}, which is not its own host; \
         add it to tokenHosts of this registry if that is right"
    )]
    ForeignRealm {
        /// The registry.
        host: String,
        /// Address that the password would be sent to.
        realm: String,
    },
    /// The registry wants the password sent in the clear.
    #[error(
        "registry {host} asks for credentials at {realm}, which is not https, and the \
         configuration has no plainHttp for that host"
    )]
    InsecureRealm {
        /// The registry.
        host: String,
        /// Address that the password would be sent to.
        realm: String,
    },
    /// The registry points to where nothing is fetched from.
    #[error("registry {host} redirects {what} to {location}, which is refused")]
    Redirect {
        /// The registry.
        host: String,
        /// Name of the requested object.
        what: String,
        /// Target of the redirect.
        location: String,
    },
    /// The registry has no such thing.
    #[error("registry {host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// Name of the requested object.
        what: String,
    },
    /// The registry answers an error.
    #[error("registry {host} answers {status} for {what}{}", asks_to_wait(*retry_after))]
    Status {
        /// The registry.
        host: String,
        /// Name of the requested object.
        what: String,
        /// The HTTP status.
        status: StatusCode,
        /// The pause that it asks for before it is asked again, at most an hour.
        retry_after: Option<Duration>,
    },
    /// The registry gave nothing, and its mirrors before it neither.
    #[error("{error}; its mirrors before it: {mirrors}")]
    Mirrored {
        /// Error of the registry itself.
        error: Box<RegistryError>,
        /// Errors of its mirrors.
        mirrors: String,
    },
    /// The layout cannot be read.
    #[error("image layout {path} cannot be read: {message}", path = .path.display())]
    Layout {
        /// Folder or archive.
        path: PathBuf,
        /// Cause of the error.
        message: String,
    },
    /// The layout has no such thing.
    #[error("image layout {path} has no {what}", path = .path.display())]
    NotInLayout {
        /// Folder or archive.
        path: PathBuf,
        /// Name of the requested object.
        what: String,
    },
    /// The content is not of the form that is wanted.
    #[error("{what} cannot be used: {message}")]
    Form {
        /// Name of the fetched object.
        what: String,
        /// Description of the fault.
        message: String,
    },
    /// The content is not what was asked for.
    #[error("{what} has digest {actual}: it was changed on its way or in the registry")]
    Tampered {
        /// Name of the fetched object.
        what: String,
        /// The digest of what came.
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
}

fn asks_to_wait(pause: Option<Duration>) -> String {
    pause.map_or_else(String::new, |pause| {
        format!(", and asks to be asked again after {} s", pause.as_secs())
    })
}

impl RegistryError {
    /// Returns true if trying again may help without anybody acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Reach { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Mirrored { error, .. } => error.is_transient(),
            _ => false,
        }
    }

    /// The pause that the registry asks for before it is asked again, at most an hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.last() {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the last error, without those of mirrors before it.
    #[must_use]
    pub fn last(&self) -> &Self {
        if let Self::Mirrored { error, .. } = self { error.last() } else { self }
    }

    /// Returns true if the error is the answer that the object is not there. Errors of mirrors
    /// before it do not count.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self.last(), Self::NotFound { .. } | Self::NotInLayout { .. })
    }

    /// The same, with what mirrors said before.
    pub(crate) fn after(self, mirrors: &[Self]) -> Self {
        if mirrors.is_empty() {
            return self;
        }
        let mirrors: Vec<String> = mirrors.iter().map(ToString::to_string).collect();
        Self::Mirrored { error: Box::new(self), mirrors: mirrors.join("; ") }
    }

    /// Returns the reason for the failure, in one word as conditions have it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Configure { .. } => "RegistryMisconfigured",
            Self::Reach { .. } => "RegistryUnreachable",
            Self::Access { .. } => "AccessDenied",
            Self::ForeignRealm { .. } | Self::InsecureRealm { .. } => "TokenServiceRefused",
            Self::Redirect { .. } => "RedirectRefused",
            Self::NotFound { .. } | Self::NotInLayout { .. } => "NotFound",
            Self::Mirrored { error, .. } => error.reason(),
            Self::Layout { .. } => "LayoutUnreadable",
            Self::Status { .. } => "RegistryError",
            Self::Form { .. } => "UnexpectedContent",
            Self::Tampered { .. } => "DigestMismatch",
            Self::TooLarge { .. } => "TooLarge",
        }
    }
}
