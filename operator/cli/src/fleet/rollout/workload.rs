//! A FlashRollout as a [`Workload`].

use flashjob_api::{FlashRollout, RolloutPhase};
use jiff::Timestamp;
use serde_json::Value;

use super::state::{awaited_approval, going_on, is_paused, status};
use super::view;
use crate::failure::{Code, Failure};
use crate::fleet::pace::FirstCount;
use crate::fleet::workload::{Frame, Workload};

impl Workload for FlashRollout {
    const COMMAND: &'static str = "kubectl flashjob rollout";
    const ENDING: &'static str = "abort";
    const FIELD: &'static str = "rollouts";
    type Phase = RolloutPhase;

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref()?.observed_generation
    }

    fn final_phase(&self) -> Option<RolloutPhase> {
        self.status.as_ref()?.phase.filter(|phase| phase.is_final())
    }

    fn is_blocked(&self) -> bool {
        // A status that is older than the spec may still have the pause that somebody has just
        // ended.
        let Some(status) = self.status.as_ref().filter(|_| !self.is_behind()) else {
            return false;
        };
        status.waits_for_person() || awaited_approval(self).is_some()
    }

    fn failure(&self) -> Option<Failure> {
        let reason = match self.ended()? {
            RolloutPhase::Failed => "EndedWithFailures",
            RolloutPhase::Aborted => "Aborted",
            _ => return None,
        };
        Some(Failure::new(Code::Failing, reason, self.line()))
    }

    fn results(&self) -> u32 {
        view::results(&status(self).counts.unwrap_or_default())
    }

    fn consequence(&self, suspend: bool) -> String {
        match suspend && self.is_over() {
            true => "; its run is over, so only a new run is held back".to_owned(),
            false => String::new(),
        }
    }

    fn unchanged(&self) -> String {
        match (self.is_suspended(), is_paused(self) && !self.is_over()) {
            (true, _) => "is already paused; nothing changed".to_owned(),
            (false, false) => "is not paused; nothing changed".to_owned(),
            (false, true) => format!(
                "is unchanged; the operator paused it: {}; {}",
                status(self).reason.unwrap_or_else(|| "a batch did not pass".to_owned()),
                going_on(self)
            ),
        }
    }

    fn line(&self) -> String {
        view::line(self)
    }

    fn details(&self, _seen: Option<FirstCount>, frame: Frame) -> String {
        view::details(self, frame)
    }

    fn json(&self, _now: Timestamp) -> Value {
        view::json(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::rollout;
    use super::*;

    #[test]
    fn a_pause_that_was_just_lifted_does_not_block() {
        let mut rollout = rollout();
        rollout.status.as_mut().expect("a status").phase = Some(RolloutPhase::Paused);
        assert!(rollout.is_blocked());
        // The spec was changed, and the status still describes the pause.
        rollout.metadata.generation = Some(2);
        assert!(!rollout.is_blocked());
    }
}
