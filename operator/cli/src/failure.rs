//! Failure of a command: its cause, and the exit code that tells programs.

use std::process::ExitCode;

use flashjob_operator::config::ConfigError;
use flashjob_plugin_host::{CallError, EngineError, LoadError, RegistryError, Stage};
use serde_json::{Value, json};

use crate::arguments::Output;
use crate::report::{print, yaml};

/// Exit codes. They are documented in `docs/kubectl-flashjob.md` and do not change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something of this machine: a file that cannot be written, a program that does not start.
    Other = 1,
    /// The command line, or a file that it names, is not what is expected.
    Usage = 2,
    /// Not found, or the registry or cluster does not answer or does not let in.
    Unavailable = 3,
    /// Not trusted.
    Untrusted = 4,
    /// Does not fit the plugin contract.
    Contract = 5,
    /// The plugin answered that it will not.
    Refused = 6,
    /// The plugin crashed or broke a limit.
    Limit = 7,
    /// The plugin asks for what the operator's configuration does not grant.
    NotGranted = 8,
    /// The plugin cannot be built.
    Build = 9,
    /// Something that was checked is not as it should be, or a FlashJob or FlashRollout ended with failures.
    Failing = 10,
    /// Something that was waited for did not come in time.
    TimedOut = 11,
    /// Nothing goes on until somebody acts: a FlashJob or FlashRollout is paused or stalled, or waits
    /// for an approval.
    Blocked = 12,
    /// Ended by a signal.
    Interrupted = 130,
}

/// Cause of a command's failure.
#[derive(Debug)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Failure {
    /// Puts one together.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    /// A command line that is not what is expected.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, "Usage", message)
    }

    /// A file that cannot be read.
    pub fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Code::Unavailable,
            "FileUnreadable",
            format!("cannot read {}: {error}", path.display()),
        )
    }

    /// A file that cannot be written.
    pub fn unwritable(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(
            Code::Other,
            "FileUnwritable",
            format!("cannot write {}: {error}", path.display()),
        )
    }

    /// The form for programs.
    pub fn json(&self) -> Value {
        json!({"exitCode": self.code as u8, "reason": self.reason, "message": self.message})
    }

    /// Prints it, and says with which code the program ends.
    pub fn show(self, output: Output) -> ExitCode {
        // This failure is the one to tell, whether or not its form for programs arrives.
        let error = json!({"error": self.json()});
        let _ = match output {
            Output::Json => print(&format!("{error:#}")),
            Output::Yaml => yaml(&error).and_then(|text| print(&text)),
            _ => Ok(()),
        };
        self.complain()
    }

    /// Says it to people alone.
    pub fn complain(self) -> ExitCode {
        eprintln!("kubectl flashjob: {}", self.message);
        ExitCode::from(self.code as u8)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let (reason, message, stage) = (error.reason(), error.to_string(), error.stage());
        match error {
            LoadError::Fetch(error) => error.into(),
            LoadError::FileChanged { .. } => Self::new(Code::Untrusted, reason, message),
            LoadError::FileTooLarge { .. } => Self::new(Code::Contract, reason, message),
            LoadError::Signatures { ref error, .. } => {
                // Somebody changed a signature on its way, or where it is kept.
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
                "; for a registry of your own see --ca-file and --plain-http".to_owned()
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
        let (code, reason) = match error {
            ConfigError::Read { .. } => (Code::Unavailable, "FileUnreadable"),
            _ => (Code::Usage, "ConfigurationRefused"),
        };
        Self::new(code, reason, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use flashjob_plugin_host::Digest;

    use super::*;

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
