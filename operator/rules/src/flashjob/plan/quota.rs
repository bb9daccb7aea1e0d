//! Refused objects. A device waits for an exhausted quota as long as objects of ours use that
//! quota. Every other refusal ends the attempt, or fails the device.

use flashjob_api::{DeviceState, reason};

use super::draft::Draft;
use crate::flashjob::observed::{Meaning, Refusal, Refused};

/// Seconds between two attempts of a job to create an object under an exhausted quota. The quota
/// controller counts deleted objects within about one second.
const TRY_AGAIN_SECONDS: i64 = 2;
/// Seconds to wait for a quota that no object of ours uses: our objects may just have been
/// deleted, and still be counted.
const UNUSED_SECONDS: i64 = 20;
/// Seconds after a refusal during which no more devices begin: they would occupy places and
/// addresses while they wait.
const CLOSED_SECONDS: i64 = 5;

impl Draft<'_> {
    /// Returns true if this object of a device is to be created now. If not, the device waits for
    /// its turn or, after a refusal, has its result or its next attempt.
    pub(super) fn may_ask_for(&mut self, uid: &str, object: Refused, name: &str) -> bool {
        let Some(refusal) = self.observed.refusals.get(name).cloned() else {
            return self.has_a_turn(uid, object, name);
        };
        // A Pod and its Service have the same name, and the Service may be gone since the Pod was
        // refused.
        let refused = match refusal.object {
            Refused::Service => reason::SERVICE_REFUSED,
            Refused::Pod => reason::POD_REFUSED,
        };
        let kind = refusal.object;
        let message = format!("the API server refuses {kind:?} {name}: {}", refusal.message);
        match refusal.meaning {
            Meaning::Final => self.fail(uid, refused, &message),
            Meaning::MayPass => self.fail_attempt(uid, refused, &message),
            Meaning::Quota { unused_since: Some(since) } if self.over(since, UNUSED_SECONDS) => {
                self.fail_attempt(uid, refused, &message);
            }
            Meaning::Quota { .. } => return self.has_a_turn(uid, object, name),
        }
        false
    }

    /// Message about a quota that the API server recently reported as exhausted: no other device
    /// begins now.
    pub(super) fn used_up_quota(&mut self) -> Option<String> {
        let observed = self.observed;
        let waits = |refusal: &&Refusal| matches!(refusal.meaning, Meaning::Quota { .. });
        let last = observed.refusals.values().filter(waits).max_by_key(|refusal| refusal.at)?;
        (!self.over(last.at, CLOSED_SECONDS)).then(|| waiting_message(&last.message))
    }

    /// Returns true if a device may try to create its object. While a quota is exhausted, one
    /// device of the job tries at a time; once its object is accepted, the next one tries.
    fn has_a_turn(&mut self, uid: &str, object: Refused, name: &str) -> bool {
        let observed = self.observed;
        let waits = |refusal: &&Refusal| {
            refusal.object == object && matches!(refusal.meaning, Meaning::Quota { .. })
        };
        let Some(last) = observed.refusals.values().filter(waits).max_by_key(|refusal| refusal.at)
        else {
            return true;
        };
        let tries = self.over(last.at, TRY_AGAIN_SECONDS) && !self.tried_quota;
        self.tried_quota |= tries;
        // With the message of another device's refusal, the status would change with each try.
        let refusal = observed.refusals.get(name).filter(waits).unwrap_or(last);
        self.await_quota(uid, &refusal.message, tries);
        tries
    }

    /// Records what the device waits for. After the address timeout it gives up its place and its
    /// address.
    fn await_quota(&mut self, uid: &str, message: &str, tries: bool) {
        let Some(record) = self.records.get(uid) else { return };
        let since = record.holds_since().unwrap_or_else(|| self.now());
        let message = waiting_message(message);
        let reason = reason::WAITING_FOR_QUOTA;
        self.waits(reason, &message);
        self.set(uid, DeviceState::Exposing, |record| {
            record.reason = Some(reason.name.to_owned());
            record.message = Some(message.clone());
        });
        // A device that tries now keeps its place: the outcome of its create is still open.
        if !tries && self.over(since, self.spec.address_timeout_seconds) {
            self.back_to_queue(uid, Some((reason, &message)));
        }
    }
}

/// Message about an exhausted quota, without the name of the refused object: many devices wait for
/// the same quota, and each of them may be the one that was refused last.
fn waiting_message(refusal: &str) -> String {
    let cause = refusal.split_once(" is forbidden: ").map_or(refusal, |(_, cause)| cause);
    format!("waiting until the quota has room: {cause}")
}
