//! Judges the batches in order: which one is in progress, which passed, and which failed.

use flashjob_api::{BatchState, BatchStatus, rollout_reason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::Draft;
use super::member_states::Member;
use super::snapshot::after;
use crate::count::counted;

/// State of the run, by its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Devices of this batch remain to be flashed.
    Runs(usize),
    /// This batch has ended, and is observed until that time.
    Soaks(usize, Timestamp),
    /// This batch did not pass.
    Stopped(Fault),
    /// All batches passed.
    Passed,
}

/// Reason for which a batch did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub batch: usize,
    /// CamelCase name.
    pub reason: &'static str,
    /// Message for people, with possible actions.
    pub message: String,
    /// False if the run waits for a person regardless of `onFailure`.
    pub may_abort: bool,
}

const GO_ON: &str = "set a new spec.retry to retry the failed devices, raise maxFailed, or set \
                     spec.abort";

impl Draft<'_> {
    /// Judges all batches up to the one in progress.
    pub(super) fn judge(&mut self) -> Verdict {
        for batch in 0..self.batches.len() {
            let verdict = self.judge_batch(batch);
            if let Some(Verdict::Stopped(_)) = &verdict
                && self.batches[batch].state != BatchState::Passed
            {
                self.batches[batch].state = BatchState::Failed;
            }
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
        Verdict::Passed
    }

    /// Judges one batch. None: the batch passed.
    fn judge_batch(&mut self, batch: usize) -> Option<Verdict> {
        // Batches that passed are judged too: their devices can regress until the run ends.
        if let Some(fault) = self.over_budget(batch) {
            return Some(Verdict::Stopped(fault));
        }
        if self.batches[batch].state == BatchState::Passed {
            return None;
        }
        if self.lists[batch].open() > 0 || !self.lists[batch].shards.is_empty() {
            let started = self.batches[batch].started_at.is_some();
            self.batches[batch].state =
                if started { BatchState::Progressing } else { BatchState::Pending };
            return Some(Verdict::Runs(batch));
        }
        let fault = self.unproven(batch).or_else(|| self.below_threshold(batch));
        if let Some(fault) = fault {
            return Some(Verdict::Stopped(fault));
        }
        self.soak(batch)
    }

    fn soak(&mut self, batch: usize) -> Option<Verdict> {
        let now = self.now();
        let seconds = self.policy(batch).soak_seconds;
        let status = &mut self.batches[batch];
        // The end is stored, so that a restart of the operator does not begin the soak again.
        let ended = status.ended_at.get_or_insert(Time(now)).0;
        let until = after(ended, seconds);
        if now < until {
            status.state = BatchState::Soaking;
            status.soak_until = Some(Time(until));
            return Some(Verdict::Soaks(batch, until));
        }
        status.state = BatchState::Passed;
        None
    }

    fn over_budget(&self, batch: usize) -> Option<Fault> {
        let (failed, allowed) = (self.failures(batch), self.allowed_failures(batch));
        if failed <= allowed {
            return None;
        }
        let regressed = self.lists[batch].count(Member::Regressed);
        let name = &self.batches[batch].name;
        let (reason, message) = if failed - regressed <= allowed {
            let message = format!(
                "batch {name}: {} reported another version after completion; maxFailed allows \
                 {allowed}; {GO_ON}",
                counted(regressed, "device")
            );
            (rollout_reason::REGRESSED.name, message)
        } else {
            let message = format!(
                "batch {name}: {} failed; maxFailed allows {allowed}; {GO_ON}",
                counted(failed, "device")
            );
            (rollout_reason::TOO_MANY_FAILED.name, message)
        };
        Some(Fault { batch, reason, message, may_abort: true })
    }

    /// Number of completed devices of a batch.
    fn completed(&self, batch: usize) -> usize {
        let list = &self.lists[batch];
        list.count(Member::Completed) + list.count(Member::Unverified)
    }

    /// Returns true if a batch has ended, none of its devices completed, and this matters: because
    /// another batch follows, or because no device of the whole run completed.
    pub(super) fn proved_nothing(&self, batch: usize) -> bool {
        let list = &self.lists[batch];
        let ended = list.open() == 0 && list.shards.is_empty();
        let is_last = batch == self.last();
        let in_run = || (0..=batch).map(|batch| self.completed(batch)).sum::<usize>();
        ended && self.completed(batch) == 0 && (!is_last || in_run() == 0)
    }

    fn unproven(&self, batch: usize) -> Option<Fault> {
        if !self.proved_nothing(batch) {
            return None;
        }
        let name = &self.batches[batch].name;
        let message = format!(
            "batch {name} ended, but none of its devices completed, so it proves nothing; set a \
             new spec.retry to retry them or, if none can be retried, to continue without this \
             proof; or set spec.abort"
        );
        Some(Fault {
            batch,
            reason: rollout_reason::NOTHING_PROVEN.name,
            message,
            may_abort: false,
        })
    }

    /// Compares the batch with its success threshold. Skipped devices count neither as completed
    /// nor in the total.
    fn below_threshold(&self, batch: usize) -> Option<Fault> {
        let least = self.policy(batch).success_threshold.or(self.spec.success_threshold)?;
        let list = &self.lists[batch];
        let all = list.names.len() - list.count(Member::Skipped);
        let completed = self.completed(batch);
        // In integers: 9 of 10 must meet 90 % exactly, which a quotient in floating point need
        // not.
        if completed * 100 >= least * all {
            return None;
        }
        let name = &self.batches[batch].name;
        let message = format!(
            "batch {name}: {completed} of {all} devices completed; successThreshold requires \
             {least}%; set a new spec.retry to retry the others, lower successThreshold, or set \
             spec.abort"
        );
        Some(Fault {
            batch,
            reason: rollout_reason::BELOW_SUCCESS_THRESHOLD.name,
            message,
            may_abort: true,
        })
    }

    /// Lets a batch pass by decision of a person.
    pub(super) fn pass(&mut self, batch: usize) {
        let now = self.now();
        let status: &mut BatchStatus = &mut self.batches[batch];
        status.state = BatchState::Passed;
        status.ended_at.get_or_insert(Time(now));
    }

    /// Reopens a batch because devices joined it.
    pub(super) fn reopen(&mut self, batch: usize) {
        let status = &mut self.batches[batch];
        status.state = if status.started_at.is_some() {
            BatchState::Progressing
        } else {
            BatchState::Pending
        };
        status.ended_at = None;
        status.soak_until = None;
    }
}
