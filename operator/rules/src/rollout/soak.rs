//! Watches flashed devices while the run continues: a device that reports another version
//! regressed.

use super::draft::Draft;
use super::member_states::Member;
use flashjob_api::rollout_reason;

impl Draft<'_> {
    /// Compares the versions that completed devices report. A device that is absent, or reports no
    /// version, does not count as regressed; one without proof may still provide it.
    pub(super) fn watch_completed(&mut self) {
        for batch in 0..self.lists.len() {
            for place in 0..self.lists[batch].states.len() {
                let state = self.lists[batch].states[place];
                if !matches!(state, Member::Completed | Member::Unverified) {
                    continue;
                }
                let name = self.lists[batch].names[place];
                let reported = self.device(name).and_then(|device| device.version);
                let Some(reported) = reported else { continue };
                match (state, reported == self.version) {
                    (Member::Unverified, true) => {
                        self.lists[batch].states[place] = Member::Completed;
                    }
                    (Member::Completed, false) => {
                        self.lists[batch].states[place] = Member::Regressed;
                        let message = format!(
                            "reported version {} and now reports {reported}",
                            self.version
                        );
                        self.fail(batch, name, rollout_reason::REGRESSED.name, Some(message));
                    }
                    _ => {}
                }
            }
        }
    }
}
