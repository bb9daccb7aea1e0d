//! State of a run, as shown in the status.

use flashjob_api::RolloutPhase;

use super::gates::Hold;

/// State of the run, as shown in the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunState {
    pub phase: RolloutPhase,
    /// CamelCase name.
    pub reason: Option<String>,
    pub waiting_for: Option<String>,
    pub message: String,
    /// True if the run makes no progress until a person fixes a fault.
    pub stalled: bool,
}

impl RunState {
    pub fn ended(phase: RolloutPhase, reason: &str, message: String) -> Self {
        let reason = Some(reason.to_owned());
        Self { phase, reason, waiting_for: None, message, stalled: false }
    }

    pub fn planning(reason: &str, waiting_for: &str, message: String, stalled: bool) -> Self {
        Self {
            phase: RolloutPhase::Planning,
            reason: Some(reason.to_owned()),
            waiting_for: Some(waiting_for.to_owned()).filter(|text| !text.is_empty()),
            message,
            stalled,
        }
    }

    pub fn held(hold: &Hold) -> Self {
        Self {
            phase: hold.phase,
            reason: Some(hold.reason.clone()),
            waiting_for: Some(hold.waiting_for.clone()),
            message: hold.message.clone(),
            stalled: hold.stalled,
        }
    }
}
