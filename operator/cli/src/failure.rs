//! Failure of a command: its cause, and the exit code for programs.

use std::io::{self, ErrorKind};
use std::path::Path;

use flashjob_config::ConfigError;
use flashjob_plugin_host::{CallError, EngineError, LoadError, RegistryError, Stage};
use serde_json::{Value, json};

use crate::cause::root;

/// Exit codes. They are documented in `docs/kubectl-flashjob.md` and do not change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// An error of this machine: a file that cannot be written, a program that does not start.
    Other = 1,
    /// The command line, or a file that it names, is invalid.
    Usage = 2,
    /// Not found, or the registry or cluster does not answer or denies access.
    Unavailable = 3,
    /// The component is not trusted.
    Untrusted = 4,
    /// The component does not fit the plugin contract.
    Contract = 5,
    /// The plugin refused the request.
    Refused = 6,
    /// The plugin crashed or exceeded a limit.
    Limit = 7,
    /// The plugin requests something that the operator's configuration does not grant.
    NotGranted = 8,
    /// The plugin cannot be built.
    Build = 9,
    /// A check found a problem, or a FlashJob or FlashRollout ended with failures.
    Failing = 10,
    /// A timeout was reached.
    TimedOut = 11,
    /// Nothing continues until somebody acts: a FlashJob or FlashRollout is paused or stalled, or
    /// waits for an approval.
    Blocked = 12,
    // 128 + 2 (SIGINT), as shells report it.
    /// A signal ended the command.
    Interrupted = 130,
}

/// Cause of a command's failure.
#[derive(Debug)]
pub struct Failure {
    /// Exit code, for programs.
    pub code: Code,
    /// Reason in one word.
    pub reason: &'static str,
    /// Message for people.
    pub message: String,
}

impl Failure {
    /// Creates a failure.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    /// Returns the failure for an invalid command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, "Usage", message)
    }

    /// Returns the failure for a file that cannot be read.
    pub fn unreadable(path: &Path, error: &io::Error) -> Self {
        let (file, unavailable) = (path.display(), |cause: String| {
            Self::new(Code::Unavailable, "FileUnreadable", cause)
        });
        match error.kind() {
            ErrorKind::InvalidData => {
                Self::usage(format!("{file} is not UTF-8 text; name another file"))
            }
            ErrorKind::NotFound => unavailable(format!(
                "cannot read {file}: there is no such file; check its name and folder"
            )),
            ErrorKind::PermissionDenied => unavailable(format!(
                "cannot read {file}: permission denied; change its permissions, or name another \
                 file"
            )),
            ErrorKind::IsADirectory => {
                unavailable(format!("cannot read {file}: it is a folder; name a file in it"))
            }
            _ => unavailable(format!("cannot read {file}: {}; name another file", root(error))),
        }
    }

    /// Returns the failure for a file or folder that cannot be written, with the obstacle.
    pub fn unwritable(path: &Path, error: &io::Error) -> Self {
        // Missing parts of the path are created, so the existing part decides.
        let existing_path =
            path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
        let folder =
            if existing_path.is_dir() { Some(existing_path) } else { existing_path.parent() };
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).display();
        let is_path = existing_path == path;
        let cause = match error.kind() {
            _ if !existing_path.is_dir() && !is_path => {
                format!("{} is a file, not a folder", existing_path.display())
            }
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory
                if is_path && !existing_path.is_dir() =>
            {
                "it is a file, not a folder".to_owned()
            }
            ErrorKind::IsADirectory => "it is a folder".to_owned(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                format!("the folder {folder} is not writable")
            }
            ErrorKind::NotFound => format!("nothing can be created in the folder {folder}"),
            _ => root(error),
        };
        let message = format!("cannot write {}: {cause}; name another path", path.display());
        Self::new(Code::Other, "FileUnwritable", message)
    }

    /// Returns the form for programs.
    pub fn json(&self) -> Value {
        json!({"exitCode": self.code as u8, "reason": self.reason, "message": self.message})
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let (reason, message, stage) = (error.reason(), error.to_string(), error.stage());
        match error {
            LoadError::Fetch(error) => error.into(),
            LoadError::ReadFile { path, source } => Self::unreadable(&path, &source),
            LoadError::FileChanged { .. } => Self::new(Code::Untrusted, reason, message),
            LoadError::FileTooLarge { .. } => Self::new(Code::Contract, reason, message),
            LoadError::Signatures { ref error, .. } => {
                // A signature was modified on its way, or in the registry.
                let code = match error.last() {
                    RegistryError::Tampered { .. } => Code::Untrusted,
                    _ => Code::Unavailable,
                };
                Self::new(code, reason, message)
            }
            LoadError::Engine(
                EngineError::CompileStopped { .. }
                | EngineError::CompileTimedOut(..)
                | EngineError::LimitReached(..),
            ) => Self::new(Code::Limit, reason, message),
            LoadError::Engine(EngineError::Start(_) | EngineError::Compiler(..)) => {
                Self::new(Code::Other, reason, message)
            }
            LoadError::Describe { error, .. } => Self { message, ..error.into() },
            _ => match stage {
                Stage::Resolve => Self::new(Code::Unavailable, reason, message),
                Stage::Verify => Self::new(Code::Untrusted, reason, message),
                Stage::Start => Self::new(Code::Contract, reason, message),
            },
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let code = match error.last() {
            RegistryError::Form { .. } | RegistryError::TooLarge { .. } => Code::Contract,
            RegistryError::Tampered { .. } => Code::Untrusted,
            _ => Code::Unavailable,
        };
        let hint = match error.last() {
            RegistryError::Access { host, .. } => {
                format!("; log in with docker login {host} or oras login {host}")
            }
            RegistryError::Reach { .. } => {
                "; for a private registry see --ca-file and --plain-http".to_owned()
            }
            _ => String::new(),
        };
        Self::new(code, error.reason(), format!("{error}{hint}"))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let (code, reason) = match error {
            CallError::Refused(_) => (Code::Refused, "Refused"),
            CallError::Trapped(_) => (Code::Limit, "Trapped"),
            CallError::TimedOut { .. } => (Code::Limit, "TimedOut"),
            CallError::OutOfMemory { .. } => (Code::Limit, "OutOfMemory"),
            CallError::LimitReached(_) => (Code::Limit, "LimitReached"),
            CallError::AnswerRejected(_) => (Code::Limit, "AnswerRejected"),
            CallError::Unavailable { .. } => (Code::Limit, "Unavailable"),
        };
        Self::new(code, reason, error.to_string())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        LoadError::from(error).into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Read { path, source } => Self::unreadable(&path, &source),
            _ => Self::new(Code::Usage, "ConfigurationRefused", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use flashjob_plugin_host::Digest;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_or_written_is_told_with_what_is_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, b"\xff").expect("a file");
        let read = |path: &Path| {
            let error =
                std::fs::read_to_string(path).err().map(|error| Failure::unreadable(path, &error));
            error.map(|failure| failure.message).unwrap_or_default()
        };
        assert!(read(&file).contains("is not UTF-8 text"), "{}", read(&file));
        assert!(read(folder.path()).contains("it is a folder"), "{}", read(folder.path()));
        assert!(read(&folder.path().join("a")).contains("there is no such file"));
        let creation_failure = |path: &Path| {
            let error =
                std::fs::create_dir_all(path).err().map(|error| Failure::unwritable(path, &error));
            error.map(|failure| failure.message).unwrap_or_default()
        };
        let in_the_way = format!("{} is a file, not a folder", file.display());
        let below = creation_failure(&file.join("a/b"));
        assert!(below.contains(&in_the_way) && below.contains("name another path"), "{below}");
        assert!(creation_failure(&file).contains("it is a file, not a folder"));
        let nowhere = creation_failure(Path::new("/proc/nobody/may/write"));
        assert!(nowhere.contains("/proc") && !nowhere.contains("os error"), "{nowhere}");
        for error in [ErrorKind::PermissionDenied, ErrorKind::StorageFull] {
            let message = Failure::unwritable(&folder.path().join("a/b"), &error.into()).message;
            assert!(!message.contains("os error"), "{message}");
        }
        let denied = Failure::unwritable(&file, &ErrorKind::PermissionDenied.into()).message;
        assert!(
            denied.contains(&format!("the folder {} is not writable", folder.path().display())),
            "{denied}"
        );
    }

    #[test]
    fn a_signature_that_was_changed_is_not_trusted_and_one_that_cannot_be_had_is_unavailable() {
        let code = |error| {
            let digest = Digest::of(b"a plugin");
            Failure::from(LoadError::Signatures { digest, error }).code
        };
        let changed =
            RegistryError::Tampered { what: "a bundle".into(), actual: Digest::of(b"another") };
        assert_eq!(code(changed), Code::Untrusted);
        let late = RegistryError::NotFound { host: "a".into(), what: "b".into() };
        assert_eq!(code(late), Code::Unavailable);
    }
}
