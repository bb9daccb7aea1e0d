//! Starts devices that are ready, as far as places, groups and quota allow.

use flashjob_api::{DeviceState, DeviceStatus, reason};

use super::draft::Draft;

impl<'a> Draft<'a> {
    /// Starts devices, given by their places in the spec, while a place is free. Returns false if
    /// one of them failed as it started and exceeded the failure budget: then none has started.
    pub(super) fn start_devices(
        &mut self,
        ready: Vec<usize>,
        queue: &[usize],
        mut places: usize,
    ) -> bool {
        // A suspended device does not wait for a quota.
        let may_start = !ready.is_empty() && !self.spec.suspend;
        let quota = if may_start { self.used_up_quota() } else { None };
        let mut groups = self.groups();
        let before = BeforeStarts {
            steps: self.plan.steps.len(),
            last_endpoint: self.last_endpoint.clone(),
        };
        // Each keeps its place, also if it cannot start now: its beginning may still be stored.
        let is_beginning = |place: &&usize| self.observed.beginning.contains(self.uid(**place));
        let mut beginning = queue.iter().filter(is_beginning).count();
        let mut started = Vec::new();
        for place in ready {
            let uid = self.uid(place);
            if let Some(message) = &quota {
                self.waits(reason::WAITING_FOR_QUOTA, message);
                // Only those whose turn it is: a job can have thousands of waiting devices.
                if places > 0 {
                    places -= 1;
                    self.set(uid, DeviceState::Pending, |record| {
                        record.reason = Some(reason::WAITING_FOR_QUOTA.name.to_owned());
                        record.message = Some(message.clone());
                    });
                }
                continue;
            }
            let is_beginning = self.observed.beginning.contains(uid);
            let free = if is_beginning { places } else { places.saturating_sub(beginning) };
            if free == 0 || self.spec.suspend {
                if !self.spec.suspend {
                    self.note_queued(uid);
                }
                continue;
            }
            if let Some(groups) = &mut groups
                && let Err(message) = self.join(uid, groups)
            {
                self.waits(reason::WAITING_FOR_GROUP, &message);
                continue;
            }
            places -= 1;
            beginning -= usize::from(is_beginning);
            started.extend(self.records.get(uid).map(|record| (uid, record.clone())));
            let results = self.results.len();
            self.start(uid);
            // A device can fail as it starts: its Service or Pod was refused, but the status that
            // it had begun was not stored. If that exceeds the failure budget, the others of this
            // plan do not start either.
            if self.results.len() > results && self.stop_reason().is_some() {
                self.take_back(started, before);
                return false;
            }
        }
        true
    }

    fn start(&mut self, uid: &str) {
        self.set(uid, DeviceState::Exposing, |record| {
            record.not_before = None;
            record.reason = None;
            record.message = None;
        });
        self.expose(uid);
    }

    /// Takes back what starting these devices changed. A pooled Service that one of them took is
    /// free again in the next plan.
    fn take_back(&mut self, started: Vec<(&str, DeviceStatus)>, before: BeforeStarts) {
        self.plan.steps.truncate(before.steps);
        self.last_endpoint = before.last_endpoint;
        let waiting = started.into_iter().filter(|(uid, _)| !self.results.contains_key(*uid));
        self.records.extend(waiting.map(|(uid, record)| (uid.to_owned(), record)));
    }
}

/// State of the draft before devices start.
struct BeforeStarts {
    /// Number of steps.
    steps: usize,
    last_endpoint: Option<String>,
}
