//! Answers of a plugin.

use flashjob_plugin_host::types::{FlashPod, Verdict};
use flashjob_plugin_host::{CallError, Measured};

use super::objects::Objects;
use crate::failure::{Code, Failure};

/// Answers of the plugin, and what the operator would do with them. A call is made only if the
/// calls before it succeeded.
pub struct PluginAnswers {
    pub validated: Measured<()>,
    pub built: Option<Measured<FlashPod>>,
    /// Pod and Service, or the reason why they are not created.
    pub objects: Option<Result<Objects, String>>,
    pub judged: Option<Measured<Verdict>>,
}

impl PluginAnswers {
    /// Returns the first failure that keeps the device from being flashed.
    pub fn failure(&self) -> Option<Failure> {
        let of = |question: &str, error: &CallError| {
            let failure = Failure::from(error.clone());
            Failure { message: format!("{question}: {}", failure.message), ..failure }
        };
        if let Err(error) = &self.validated.answer {
            return Some(of("validate-settings", error));
        }
        if let Some(Err(error)) = self.built.as_ref().map(|built| &built.answer) {
            return Some(of("build", error));
        }
        if let Some(Err(denied)) = &self.objects {
            return Some(Failure::new(Code::NotGranted, "GrantDenied", denied.clone()));
        }
        match self.judged.as_ref().map(|judged| &judged.answer) {
            Some(Err(error)) => Some(of("judge", error)),
            _ => None,
        }
    }
}
