//! A FlashJob as a [`Workload`].

use flashjob_api::{FlashJob, Phase, condition};
use jiff::Timestamp;
use serde_json::Value;

use super::pace::{self, FirstCount, pace};
use super::view;
use super::workload::{Frame, Workload};
use crate::failure::{Code, Failure};

impl Workload for FlashJob {
    const COMMAND: &'static str = "kubectl flashjob";
    const ENDING: &'static str = "cancel";
    const FIELD: &'static str = "jobs";
    type Phase = Phase;

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref()?.observed_generation
    }

    fn final_phase(&self) -> Option<Phase> {
        self.status.as_ref()?.phase.filter(|phase| *phase != Phase::InProgress)
    }

    fn is_blocked(&self) -> bool {
        // A status that is older than the spec may still have the pause that somebody has just
        // ended.
        let Some(status) = self.status.as_ref().filter(|_| !self.is_behind()) else {
            return false;
        };
        [condition::SUSPENDED, condition::STALLED]
            .iter()
            .any(|kind| condition::holds(&status.conditions, kind))
    }

    fn failure(&self) -> Option<Failure> {
        (self.ended() == Some(Phase::Failed))
            .then(|| Failure::new(Code::Failing, "EndedWithFailures", self.line()))
    }

    fn results(&self) -> u32 {
        let counts = self.status.as_ref().and_then(|status| status.counts);
        pace::results(&counts.unwrap_or_default())
    }

    fn consequence(&self, suspend: bool) -> String {
        let words = if suspend && self.is_over() {
            "; all its devices have results, and devices added later wait"
        } else {
            ""
        };
        words.to_owned()
    }

    fn line(&self) -> String {
        view::line(self)
    }

    fn details(&self, first_count: Option<FirstCount>, frame: Frame) -> String {
        view::details(self, pace(self, first_count, frame.now), frame)
    }

    fn json(&self, now: Timestamp) -> Value {
        view::json(self, pace(self, None, now))
    }
}
