//! Why a registry, or an image layout in its place, did not do what was asked for.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;

use crate::Digest;

/// Why a registry, or an image layout in its place, gave no component, or a registry took none.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The client cannot be made.
    #[error("cannot set up the connection to registry {host}: {message}")]
    Configure {
        /// The registry.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// The registry does not answer.
    #[error("cannot reach registry {host}: {message}")]
    Reach {
        /// The registry.
        host: String,
        /// What happened.
        message: String,
    },
    /// The registry refuses the credentials, or wants some.
    #[error(
        "registry {host} refuses access to {what} ({status}): check the credentials that are configured for this registry"
    )]
    Access {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// The registry wants the password sent elsewhere.
    #[error(
        "registry {host} asks for credentials on behalf of {realm}, which is not its own host; add it to tokenHosts of this registry if that is right"
    )]
    ForeignRealm {
        /// The registry.
        host: String,
        /// Where the password would go.
        realm: String,
    },
    /// The registry wants the password sent in the clear.
    #[error(
        "registry {host} asks for credentials at {realm}, which is not https, and the configuration has no plainHttp for that host"
    )]
    InsecureRealm {
        /// The registry.
        host: String,
        /// Where the password would go.
        realm: String,
    },
    /// The registry points to where nothing is fetched from.
    #[error("registry {host} redirects {what} to {location}, which is refused")]
    Redirect {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// Where to.
        location: String,
    },
    /// The registry has no such thing.
    #[error("registry {host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry answers an error.
    #[error("registry {host} answers {status} for {what}{}", asks_to_wait(*retry_after))]
    Status {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: StatusCode,
        /// The pause that it asks for before it is asked again, at most an hour.
        retry_after: Option<Duration>,
    },
    /// The registry gave nothing, and its mirrors before it neither.
    #[error("{error}; its mirrors before it: {mirrors}")]
    Mirrored {
        /// What the registry itself says.
        error: Box<RegistryError>,
        /// What its mirrors said.
        mirrors: String,
    },
    /// The layout cannot be read.
    #[error("image layout {path} cannot be read: {message}", path = .path.display())]
    Layout {
        /// Folder or archive.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The layout has no such thing.
    #[error("image layout {path} has no {what}", path = .path.display())]
    NotInLayout {
        /// Folder or archive.
        path: PathBuf,
        /// What was asked for.
        what: String,
    },
    /// What came is not of the form that is wanted.
    #[error("{what} cannot be used: {message}")]
    Form {
        /// What was fetched.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// What came is not what was asked for.
    #[error("{what} has digest {actual}: it was changed on its way or in the registry")]
    Tampered {
        /// What was fetched.
        what: String,
        /// The digest of what came.
        actual: Digest,
    },
    /// What came is too large.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was fetched.
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
    /// Whether trying again may help without anybody acting.
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

    /// What was said last, without what mirrors said before.
    #[must_use]
    pub fn last(&self) -> &Self {
        if let Self::Mirrored { error, .. } = self { error.last() } else { self }
    }

    /// Whether it is an answer: it is not there. What mirrors said before has no say in that.
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

    /// What failed, in one word as conditions have it.
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
            Self::Form { .. } => "NotAPlugin",
            Self::Tampered { .. } => "DigestMismatch",
            Self::TooLarge { .. } => "TooLarge",
        }
    }
}
