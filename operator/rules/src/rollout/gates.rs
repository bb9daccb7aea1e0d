//! Gates: reasons why no device may start now. Each names what it waits for.

use flashjob_api::{FirmwarePin, RolloutPhase, rollout_reason};
use jiff::Timestamp;

use super::draft::Draft;
use super::judge::Fault;
use super::member_states::instance_of;
use super::snapshot::OtherRollout;
use crate::firmware::{FirmwareState, REGISTRY, ResolveFirmware, settled, waited_for};
use crate::schedule::{LOOK_AHEAD, State};

/// Maximum number of runs that a message names.
const SHOWN_RUNS: usize = 3;

/// A closed gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// Phase of the rollout while the gate is closed.
    pub phase: RolloutPhase,
    /// CamelCase name.
    pub reason: String,
    /// The one thing that the rollout waits for.
    pub waiting_for: String,
    /// One sentence for a person.
    pub message: String,
    /// True if the run makes no progress until a person fixes a fault.
    pub stalled: bool,
}

impl Hold {
    fn waits(reason: &str, waiting_for: String) -> Self {
        let message = format!("no device starts: waiting for {waiting_for}");
        let (phase, reason) = (RolloutPhase::Waiting, reason.to_owned());
        Self { phase, reason, waiting_for, message, stalled: false }
    }

    /// Waits for a person because of a fault.
    pub fn paused(reason: &str, message: String) -> Self {
        Self {
            phase: RolloutPhase::Paused,
            reason: reason.to_owned(),
            waiting_for: format!("a person: {reason}"),
            message,
            stalled: true,
        }
    }

    pub fn of(fault: Fault) -> Self {
        Self::paused(fault.reason, fault.message)
    }

    /// Waits for a person because the name of a FlashJob is taken by another object.
    pub fn name_taken(name: &str) -> Self {
        Self::paused(
            rollout_reason::NAME_TAKEN.name,
            format!("FlashJob {name} exists and does not belong to this rollout; delete it"),
        )
    }
}

/// No window opens within the search limit: a person has to correct the schedule.
fn no_window() -> Hold {
    let waiting_for = "a change of spec.windows or spec.blackouts".to_owned();
    let message = "no device starts: no further window opens; correct spec.windows or \
                   spec.blackouts";
    let hold = Hold::waits(rollout_reason::NO_WINDOW.name, waiting_for);
    Hold { message: message.to_owned(), stalled: true, ..hold }
}

/// Waits for an older rollout, and names what that one waits for.
fn behind(older: &str, device: &str, awaits_person: Option<&str>) -> Hold {
    let (reason, waiting_for, action) = match awaits_person {
        None => (rollout_reason::OLDER_ROLLOUT, format!("FlashRollout {older}"), String::new()),
        Some(awaited) => (
            rollout_reason::OLDER_ROLLOUT_BLOCKED,
            format!("FlashRollout {older}, which waits for {awaited}"),
            format!("; it waits for {awaited}; unblock it, or end it with its spec.abort"),
        ),
    };
    let mut hold = Hold::waits(reason.name, waiting_for);
    hold.message = format!(
        "no device starts: FlashRollout {older} is older and still has to flash {device}{action}"
    );
    hold
}

impl Draft<'_> {
    /// `spec.suspend`, which applies in every state.
    pub(super) fn suspended(&self) -> Option<Hold> {
        self.spec.suspend.then(|| Hold {
            phase: RolloutPhase::Paused,
            reason: rollout_reason::SUSPEND_REQUESTED.name.to_owned(),
            waiting_for: "spec.suspend to be false".to_owned(),
            message: "spec.suspend is true: no device starts".to_owned(),
            stalled: false,
        })
    }

    /// Returns the gate that keeps a batch from starting devices. None: it may start.
    pub(super) fn gate(&mut self, batch: usize) -> Option<Hold> {
        let hold = self.suspended().or_else(|| self.window()).or_else(|| self.approval(batch));
        let hold = hold.or_else(|| self.older_rollout(batch));
        // The registry comes last: it need not be asked while another gate is closed.
        hold.or_else(|| self.firmware_is_unproven(batch))
    }

    fn window(&mut self) -> Option<Hold> {
        let schedule = self.snapshot.rollout.schedule.as_ref()?;
        if self.spec.windows.is_empty() && self.spec.blackouts.is_empty() {
            return None;
        }
        let now = self.now();
        // The schedule is evaluated again before the time that it searched is over.
        let later = now.checked_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX);
        match schedule.state_at(now) {
            State::Open { until } => {
                self.wake(until.unwrap_or(later));
                None
            }
            State::Closed { opens } => {
                self.wake(opens.unwrap_or(later));
                let Some(at) = opens else { return Some(no_window()) };
                let waiting_for = format!("the next window (opens at {at})");
                Some(Hold::waits(rollout_reason::WINDOW_CLOSED.name, waiting_for))
            }
        }
    }

    /// Returns the approval that a batch requires. None: it requires none.
    pub(super) fn wanted_approval(&self, batch: usize) -> Option<String> {
        let policy = self.policy(batch);
        policy.approval.then(|| format!("{}@{}", policy.name, self.run))
    }

    fn approval(&self, batch: usize) -> Option<Hold> {
        let approval = self.wanted_approval(batch)?;
        if self.spec.approvals.contains(&approval) {
            return None;
        }
        let name = &self.batches[batch].name;
        let mut hold = Hold::waits(
            rollout_reason::APPROVAL_MISSING.name,
            format!("approval of batch {name}"),
        );
        let outdated = self.outdated_approvals(name);
        hold.message = format!(
            "no device starts: batch {name} waits for approval; add {approval} to \
             spec.approvals{outdated}"
        );
        Some(hold)
    }

    /// Returns the runs that approvals of a batch name instead of this one, as the end of a
    /// sentence; empty if there are none.
    fn outdated_approvals(&self, batch: &str) -> String {
        let approvals = self.spec.approvals.iter();
        let of_batch = approvals.filter_map(|approval| {
            approval.strip_prefix(batch).and_then(|rest| rest.strip_prefix('@'))
        });
        let mut runs: Vec<&str> = of_batch.filter(|run| *run != self.run).collect();
        // The set has no order, and a message that changes would be stored again and again.
        runs.sort_unstable();
        let more = match runs.len().saturating_sub(SHOWN_RUNS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        runs.truncate(SHOWN_RUNS);
        match runs.is_empty() {
            true => String::new(),
            false => format!(
                "; its approval names run {}{more}, but this run is {}",
                runs.join(", "),
                self.run
            ),
        }
    }

    /// Returns the gate of an older rollout that still has to flash one of the same devices.
    fn older_rollout(&self, batch: usize) -> Option<Hold> {
        let rollout = self.snapshot.rollout;
        // Both rollouts must agree on which one is older without asking each other. Creation times
        // are whole seconds, so the names decide between equal ones.
        let rank = (rollout.created, rollout.namespace.as_str(), rollout.name.as_str());
        let is_older =
            |other: &&OtherRollout<'_>| (other.created, other.namespace, other.name) < rank;
        let mut older: Vec<_> = self.snapshot.other_rollouts.iter().filter(is_older).collect();
        older.sort_by_key(|other| (other.created, other.namespace, other.name));
        let list = &self.lists[batch];
        let open = || list.names.iter().zip(&list.states).filter(|(_, state)| state.is_open());
        for other in older {
            let shared = open().find(|(name, _)| {
                let (namespace, name) = instance_of(&rollout.namespace, name);
                (other.holds)(namespace, name)
            });
            if let Some((device, _)) = shared {
                let name = if other.namespace == rollout.namespace {
                    other.name.to_owned()
                } else {
                    format!("{}/{}", other.namespace, other.name)
                };
                return Some(behind(&name, device, other.awaits_person));
            }
        }
        None
    }

    /// Queries the registry for the firmware again before a batch starts, and during a batch if
    /// another entry of `firmwareTrust` applies now. Without a digest there is nothing that could
    /// be gone.
    fn firmware_is_unproven(&mut self, batch: usize) -> Option<Hold> {
        let stored = self.firmware.as_ref()?;
        let trust = self.snapshot.world.firmware_trust(&stored.reference);
        let is_outdated = stored.trust != trust;
        // Asked before each batch: firmware that is gone from its registry would fail every device
        // of the batch.
        let starts = self.batches[batch].started_at.is_none() && stored.digest.is_some();
        if !starts && !is_outdated {
            return None;
        }
        let reference = stored.reference.clone();
        let question = ResolveFirmware {
            run: self.run.to_owned(),
            batch: Some(batch),
            reference: reference.clone(),
            pin: stored.digest.as_ref().map_or(FirmwarePin::None, |_| FirmwarePin::Digest),
            verify: self.spec.verify_firmware,
            trust,
            version: self.version.to_owned(),
            device_types: stored.device_types.clone(),
        };
        let paused = |reason: &str, message: &str| {
            Some(Hold::paused(reason, format!("firmware {reference}: {message}")))
        };
        let hold = match self.snapshot.world.firmware(&question) {
            FirmwareState::Resolved(resolved) => match settled(&question, resolved) {
                Ok(firmware) => {
                    self.firmware = Some(firmware);
                    return None;
                }
                Err((reason, message)) => Some(Hold::paused(reason, message)),
            },
            FirmwareState::NotAsked | FirmwareState::Asking => {
                Some(Hold::waits(rollout_reason::RESOLVING_FIRMWARE.name, REGISTRY.to_owned()))
            }
            FirmwareState::Failed { reason, message, permanent: true } => {
                paused(&reason, &message)
            }
            FirmwareState::Failed { reason, message, permanent: false } => {
                let mut hold = Hold::waits(&reason, waited_for(&reason).to_owned());
                hold.message = format!("no device starts: firmware {reference}: {message}");
                Some(hold)
            }
        };
        self.plan.question = Some(question);
        hold
    }
}
