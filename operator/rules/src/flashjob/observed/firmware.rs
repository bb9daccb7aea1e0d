//! Firmware that a FlashJob or a FlashRollout waits for: the question to its registry, and the
//! latest answer.

use std::sync::Arc;

use crate::firmware::{FirmwareState, ResolveFirmware};

/// Question about firmware, and its answer.
#[derive(Clone, Debug, Default)]
pub struct Inquiry(Option<QuestionState>);

#[derive(Clone, Debug)]
struct QuestionState {
    question: Arc<ResolveFirmware>,
    answer: FirmwareState,
    /// True if the last plan asked the question: there is no answer yet, or not the required one.
    is_open: bool,
}

impl Inquiry {
    /// Follows the question of a plan. Returns the question if the registry must be queried, until
    /// [`Self::awaits`] returns false for it.
    pub fn follow(&mut self, question: Option<ResolveFirmware>) -> Option<Arc<ResolveFirmware>> {
        let Some(question) = question else {
            // A resolved answer may not be stored yet.
            self.0.take_if(|state| !matches!(state.answer, FirmwareState::Resolved(_)));
            self.0.iter_mut().for_each(|state| state.is_open = false);
            return None;
        };
        let same = self.0.take().filter(|state| *state.question == question);
        if same.as_ref().is_some_and(|state| state.is_open) {
            self.0 = same;
            return None;
        }
        let question = Arc::new(question);
        let answer = same.map_or(FirmwareState::Asking, |state| state.answer);
        self.0 = Some(QuestionState { question: question.clone(), answer, is_open: true });
        Some(question)
    }

    /// Returns true if the answer to this question is still awaited: to the one that
    /// [`Self::follow`] returned, not to an equal one that was asked later.
    #[must_use]
    pub fn awaits(&self, question: &Arc<ResolveFirmware>) -> bool {
        self.0
            .as_ref()
            .is_some_and(|state| state.is_open && Arc::ptr_eq(&state.question, question))
    }

    /// Stores the answer. Returns false if it is no longer awaited.
    pub fn take(&mut self, question: &Arc<ResolveFirmware>, answer: FirmwareState) -> bool {
        let is_awaited = self.awaits(question);
        if is_awaited && let Some(state) = &mut self.0 {
            state.answer = answer;
        }
        is_awaited
    }

    /// Returns true if a question was asked and has no answer yet.
    #[must_use]
    pub(crate) fn is_unanswered(&self) -> bool {
        let state = self.0.as_ref().filter(|state| state.is_open);
        state.is_some_and(|state| matches!(state.answer, FirmwareState::Asking))
    }

    /// The answer to a question, as far as it is known.
    #[must_use]
    pub fn answer(&self, question: &ResolveFirmware) -> FirmwareState {
        let state = self.0.as_ref().filter(|state| *state.question == *question);
        state.map(|state| state.answer.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use flashjob_api::{FirmwarePin, FirmwareVerification};

    use super::*;
    use crate::firmware::ResolvedFirmware;

    fn question(run: &str) -> ResolveFirmware {
        ResolveFirmware {
            run: run.to_owned(),
            batch: None,
            reference: "r.io/f:1".to_owned(),
            pin: FirmwarePin::Digest,
            verify: FirmwareVerification::IfConfigured,
            trust: None,
            version: "1".to_owned(),
            device_types: vec!["esp32".to_owned()],
        }
    }

    fn failed() -> FirmwareState {
        let (reason, message) = ("FirmwareUnavailable".to_owned(), "away".to_owned());
        FirmwareState::Failed { reason, message, permanent: false }
    }

    #[test]
    fn one_question_is_asked_once_and_another_takes_its_place() {
        let mut inquiry = Inquiry::default();
        let first = inquiry.follow(Some(question("a"))).expect("it is new");
        assert_eq!(inquiry.follow(Some(question("a"))), None);
        assert_eq!(inquiry.answer(&question("a")), FirmwareState::Asking);
        assert!(inquiry.take(&first, failed()));
        assert_eq!(inquiry.answer(&question("a")), failed());
        assert!(inquiry.follow(Some(question("b"))).is_some());
        assert!(!inquiry.take(&first, failed()));
        assert_eq!(inquiry.answer(&question("a")), FirmwareState::NotAsked);
    }

    #[test]
    fn a_failure_that_nobody_waits_for_is_asked_no_more_and_what_was_found_out_stays() {
        let mut inquiry = Inquiry::default();
        let first = inquiry.follow(Some(question("a"))).expect("it is new");
        assert!(inquiry.take(&first, failed()));
        assert_eq!(inquiry.follow(None), None);
        assert!(!inquiry.awaits(&first));
        let again = inquiry.follow(Some(question("a"))).expect("it is new again");
        assert!(!inquiry.awaits(&first) && inquiry.awaits(&again));
        let resolved = FirmwareState::Resolved(ResolvedFirmware::default());
        assert!(inquiry.take(&again, resolved.clone()));
        assert_eq!(inquiry.follow(None), None);
        assert_eq!(inquiry.answer(&question("a")), resolved);
        assert!(!inquiry.awaits(&again));
    }

    #[test]
    fn an_answer_that_does_not_do_is_asked_for_again_and_stands_meanwhile() {
        let mut inquiry = Inquiry::default();
        let first = inquiry.follow(Some(question("a"))).expect("it is new");
        let resolved = FirmwareState::Resolved(ResolvedFirmware::default());
        assert!(inquiry.take(&first, resolved.clone()));
        assert_eq!(inquiry.follow(Some(question("a"))), None);
        assert!(inquiry.awaits(&first));
        assert_eq!(inquiry.follow(None), None);
        let again = inquiry.follow(Some(question("a"))).expect("nobody asks any more");
        assert!(!inquiry.awaits(&first) && inquiry.awaits(&again));
        assert_eq!(inquiry.answer(&question("a")), resolved);
    }
}
