//! Chooses the next devices: the guards first, then the plugin's answer, the lock, and the
//! firmware.

use flashjob_api::{DeviceState, DeviceStatus, Reason, VerifyMode, reason};
use flashjob_types::plugin::Proof;
use hashbrown::HashMap;

use super::draft::Draft;
use super::expose::BuildAnswer;
use super::request;
use crate::count::counted;
use crate::flashjob::observed::{Finish, Identity, PluginView};

/// Number of devices recorded, and asked about, ahead of their turn, beyond `parallelism`: a
/// device whose name, endpoint and baseline are stored already can start as soon as a place is
/// free, without waiting for the next status write.
// A status write may rest for 3 s (`world::pace`), in which about 120 devices end at 40 devices/s,
// the rate measured with 4,000 devices (docs/performance.md).
const AHEAD: usize = 128;
/// Number of waiting devices for which the status names the holder they wait for.
const SHOWN_BUSY: usize = 64;

impl<'a> Draft<'a> {
    /// Gives every device without a begun attempt its result, its start, or its reason to wait.
    pub fn process_queue(&mut self) {
        let mut queue = self.queue();
        if queue.is_empty() {
            return;
        }
        self.judge_duplicates(&mut queue);
        if self.stop(&queue) {
            return;
        }
        self.clear_passing_reasons();
        let noted = self.waiting.clone();
        let places = self.places();
        let mut ahead = Ahead { each: places + AHEAD, plugins: HashMap::new(), busy: SHOWN_BUSY };
        let ready: Vec<usize> =
            queue.iter().copied().filter(|place| self.is_ready(*place, &mut ahead)).collect();
        self.prove_firmware();
        // Some may just have failed; if they exceed the failure budget, nothing starts.
        if self.stop(&queue) {
            self.waiting = noted;
            return;
        }
        if !self.start_devices(ready, &queue, places) {
            self.waiting = noted;
            self.stop(&queue);
        }
    }

    /// Clears the reasons to wait that can pass at any time: where one still holds, this plan sets
    /// it again.
    fn clear_passing_reasons(&mut self) {
        let passing = [reason::DEVICE_BUSY.name, reason::WAITING_FOR_QUOTA.name];
        let passes = |record: &DeviceStatus| {
            record.state == DeviceState::Pending
                && record.reason.as_deref().is_some_and(|reason| passing.contains(&reason))
        };
        for record in self.records.values_mut().filter(|record| passes(record)) {
            record.reason = None;
            record.message = None;
        }
    }

    /// Returns true if the job starts no more devices at all; every waiting device then gets its
    /// result.
    fn stop(&mut self, queue: &[usize]) -> bool {
        let Some((reason, message)) = self.stop_reason() else { return false };
        for &place in queue {
            if self.result_at(place).is_some() {
                continue;
            }
            let uid = self.uid(place);
            match reason {
                reason::JOB_STOPPED => self.skip(uid, reason, &message),
                reason => self.fail(uid, reason, &message),
            }
        }
        true
    }

    /// Returns true if a device may start: it passes the guards, its plugin has answered, its
    /// backoff is over, and no other job flashes it. The cheapest checks come first; a device that
    /// waits for its plugin or for another job takes no other device's turn.
    fn is_ready(&mut self, place: usize, ahead: &mut Ahead<'a>) -> bool {
        let uid = self.uid(place);
        let Some(plugin) = self.passes_guards(uid, place) else { return false };
        // The device reported the result of an attempt that was given up: it needs no other
        // attempt.
        if self.records.get(uid).is_some_and(|record| record.attempt > 1) && self.is_proven(uid) {
            self.flashed(uid, Proof::ReportedVersion);
            return false;
        }
        if !self.has_firmware(uid) {
            return false;
        }
        if let Err(why) = self.can_be_asked(plugin) {
            self.waits(
                reason::PLUGIN_NOT_READY,
                &format!("plugin {} is not ready: {why}", plugin.name),
            );
            return false;
        }
        if let Some(message) = self.is_busy(uid) {
            self.waits(reason::DEVICE_BUSY, &message);
            // With a record, the Pod would be taken for that of the attempt that is to begin.
            let may_record = ahead.busy > 0 && self.pod_without_record(uid).is_none();
            if may_record || self.records.contains_key(uid) {
                ahead.busy = ahead.busy.saturating_sub(1);
                self.set(uid, DeviceState::Pending, |record| {
                    record.reason = Some(reason::DEVICE_BUSY.name.to_owned());
                    record.message = Some(message);
                });
            }
            return false;
        }
        let until = self.records.get(uid).and_then(|record| record.waits_until());
        if let Some(until) = until.filter(|until| *until > self.now()) {
            self.wake(until);
            self.note_queued(uid);
            return false;
        }
        let of_plugin = ahead.plugins.entry(plugin.name.as_str()).or_insert(ahead.each);
        if *of_plugin == 0 {
            self.note_queued(uid);
            return false;
        }
        *of_plugin -= 1;
        self.record_ahead(uid, plugin)
    }

    /// The uid at a place in the spec.
    pub(super) fn uid(&self, place: usize) -> &'a str {
        &self.spec.uuid[place]
    }

    /// Places of the devices without a result and without a begun attempt. Devices that begin with
    /// a status write in flight come first, then those that already have a Service; those that had
    /// their turn come last.
    fn queue(&self) -> Vec<usize> {
        let (mut beginning, mut with_service) = (Vec::new(), Vec::new());
        let (mut waiting, mut had_their_turn) = (Vec::new(), Vec::new());
        let has_record = self.places_with_record();
        for place in (0..self.spec.uuid.len()).filter(|place| self.result_at(*place).is_none()) {
            let record = if has_record[place] { self.records.get(self.uid(place)) } else { None };
            match record {
                Some(record) if record.state != DeviceState::Pending => {}
                _ if self.observed.beginning.contains(self.uid(place)) => beginning.push(place),
                None => waiting.push(place),
                Some(record) => match record.waits_until() {
                    Some(turn) => had_their_turn.push((turn, place)),
                    // Its Service may hold an address that no other device can use meanwhile.
                    None if self.has_service(record) => with_service.push(place),
                    None => waiting.push(place),
                },
            }
        }
        had_their_turn.sort();
        beginning.extend(with_service);
        beginning.extend(waiting);
        beginning.extend(had_their_turn.into_iter().map(|(_, place)| place));
        beginning
    }

    /// For each place, true if it has a record.
    fn places_with_record(&self) -> Vec<bool> {
        let mut has_record = vec![false; self.spec.uuid.len()];
        for place in self.records.keys().filter_map(|uid| self.observed.job.place(uid)) {
            has_record[place] = true;
        }
        has_record
    }

    fn has_service(&self, record: &DeviceStatus) -> bool {
        // The name is a SHA-256: without any Service it need not be computed for each waiting
        // device.
        let service = || self.service(&self.attempt_name(&record.uid, record.attempt));
        !self.observed.services.is_empty() && service().is_some_and(|service| !service.deleting)
    }

    /// Skips all but one of several uids of the same device: the uid whose attempt began, or else
    /// the first in the spec, is kept.
    fn judge_duplicates(&mut self, queue: &mut Vec<usize>) {
        let has_duplicates = self.observed.has_duplicates;
        let unknown = |uid: &str| {
            self.listed_devices.iter().any(|device| {
                device.uid == *uid && device.reason.as_deref() == Some(reason::UNKNOWN_DEVICE.name)
            })
        };
        let has_record = self.places_with_record();
        // A stored result can conflict only with another Instance of the same device.
        let begun_places = (0..self.spec.uuid.len())
            .filter(|place| has_duplicates || has_record[*place] && !self.is_unmoved(*place))
            .filter(|place| match self.result_at(*place) {
                Some(Finish::Completed) => true,
                // A uid that no Instance ever had is no device, so it makes no other uid a
                // duplicate.
                Some(Finish::Failed) => !unknown(self.uid(*place)),
                Some(Finish::Skipped) => false,
                None => self
                    .records
                    .get(self.uid(*place))
                    .is_some_and(|record| record.is_locked() || record.attempt > 1),
            });
        let mut first: HashMap<Identity, &'a str> = HashMap::new();
        for uid in begun_places.map(|place| self.uid(place)) {
            for identity in self.identities(uid) {
                first.entry(identity).or_insert(uid);
            }
        }
        if first.is_empty() && !has_duplicates {
            return;
        }
        let mut waiting = queue.clone();
        waiting.sort_unstable();
        for place in waiting {
            let uid = self.uid(place);
            let Some(instance) = self.instance(uid) else { continue };
            // Each Instance has one uid, so another uid can share only the identity of the device,
            // not that of the Instance.
            if let Some(other) = first.get(&instance.identity).filter(|other| **other != uid) {
                let message = format!(
                    "Instance {} is the same device as uid {other} of this job",
                    instance.name
                );
                self.skip(uid, reason::DUPLICATE_DEVICE, &message);
            } else if has_duplicates {
                first.insert(instance.identity.clone(), uid);
            }
        }
        if !self.results.is_empty() {
            queue.retain(|place| self.result_at(*place).is_none());
        }
    }

    /// Returns true if a device's Instance is the one in its record. Then it has no duplicate that
    /// `has_duplicates` does not tell of.
    fn is_unmoved(&self, place: usize) -> bool {
        let uid = self.uid(place);
        let (Some(record), Some(instance)) = (self.records.get(uid), self.instance(uid)) else {
            return false;
        };
        self.spec.host_endpoint.is_none()
            && instance.uid == *uid
            && record.name.as_ref() == Some(&instance.name)
            && record.host_endpoint.as_deref() == instance.endpoint()
    }

    /// Reason for which no more devices are started at all.
    pub(super) fn stop_reason(&mut self) -> Option<(Reason, String)> {
        if self.job_deadline_passed() {
            return Some((
                reason::DEADLINE_EXCEEDED,
                "the job ran longer than activeDeadlineSeconds".to_owned(),
            ));
        }
        let budget = self.spec.max_failed_devices?.of(self.spec.uuid.len());
        let failed = (0..self.spec.uuid.len())
            .filter(|place| self.result_at(*place) == Some(Finish::Failed))
            .count();
        (failed > budget).then(|| {
            (
                reason::JOB_STOPPED,
                format!("{} failed, maxFailedDevices allows {budget}", counted(failed, "device")),
            )
        })
    }

    /// Number of devices that may start. Devices whose Pod ended release their place, those that
    /// must still prove their version keep it; and where failures are budgeted a device keeps its
    /// place until it is judged, or one more would start before the failure counts.
    ///
    /// Where proof is required, a device whose end is not stored keeps its place too: after a
    /// restart, the operator may not observe again what proved its version.
    fn places(&mut self) -> usize {
        let required = self.spec.verify.mode == Some(VerifyMode::Required);
        let unstored = if required { self.unstored_ends() } else { 0 };
        self.plan.urgent |= unstored > 0;
        let judged = required || self.spec.max_failed_devices.is_some();
        let (mut active, mut verifying) = (0, 0_usize);
        for record in self.records.values().filter(|record| record.is_locked()) {
            match record.state.is_in_flight() && (judged || self.is_in_flight(record)) {
                true => active += 1,
                // Also one whose Pod has ended, and whose plugin has not answered yet.
                false => verifying += 1,
            }
        }
        let kept =
            if required { verifying } else { verifying.saturating_sub(self.spec.parallelism) };
        let kept = kept + unstored;
        self.spec
            .parallelism
            .saturating_sub(active + kept)
            // With `externalIP` one address serves all devices, one after the other.
            .min(self.most_in_flight().saturating_sub(active))
    }

    /// Number of devices that are in flight in the stored status, but no longer in this plan.
    fn unstored_ends(&self) -> usize {
        let is_at_work = |uid: &str| self.records.get(uid).is_some_and(DeviceStatus::is_locked);
        let stored = self.observed.job.status.devices.iter().filter(|_| self.same_run);
        stored.filter(|device| device.is_locked() && !is_at_work(&device.uid)).count()
    }

    /// Message that names the job or Pod the device waits for, if any.
    fn is_busy(&self, uid: &str) -> Option<String> {
        if let Some(pod) = self.pod_in_the_way(uid) {
            let ends = self.foreign_ends_at(pod);
            let ends =
                ends.map(|at| format!("; it has no deadline of its own and is stopped at {at}"));
            let ends = ends.unwrap_or_default();
            return Some(format!("Pod {} may still be flashing this device{ends}", pod.name));
        }
        if let Some(pod) = self.pod_without_record(uid) {
            return Some(format!(
                "Pod {} of an earlier attempt still exists; if it stays, a finalizer or a node \
                 that does not report keeps it",
                pod.name
            ));
        }
        let holder = self.held_by_another(uid)?;
        if let Some(pod) = &holder.predecessor_pod {
            return Some(format!(
                "Pod {pod} of an earlier FlashJob {} may still be flashing this device",
                holder.job
            ));
        }
        Some(format!("FlashJob {} is flashing this device (uid {})", holder.job, holder.uid))
    }

    /// Records a device whose turn comes soon, and asks its plugin. Returns false if the answer is
    /// missing, or the device has got its result.
    fn record_ahead(&mut self, uid: &str, plugin: &'a PluginView) -> bool {
        let Some(instance) = self.instance(uid) else { return false };
        let overriding = self.spec.host_endpoint.as_deref().map(request::canonical);
        let endpoint = overriding.or_else(|| instance.endpoint().map(str::to_owned));
        let (name, version) = (instance.name.clone(), instance.version().map(str::to_owned));
        let namespace = &instance.namespace;
        let namespace = (*namespace != self.observed.job.key.namespace).then(|| namespace.clone());
        self.set(uid, DeviceState::Pending, |record| {
            record.attempt = record.attempt.max(1);
            // Later attempts keep the first baseline: an earlier one may have flashed the device
            // after all, and a baseline taken now would hide that proof.
            if record.attempt == 1 {
                record.baseline_version = version;
            }
            record.namespace = namespace;
            record.name = Some(name);
            record.host_endpoint = endpoint;
        });
        let attempt = self.records.get(uid).map_or(1, |record| record.attempt);
        match self.built(uid, attempt, plugin) {
            BuildAnswer::Built(built) => self.granted(uid, attempt, plugin, &built),
            BuildAnswer::Wait => {
                self.note_queued(uid);
                false
            }
            BuildAnswer::Over => false,
        }
    }
}

/// Limits on the part of the queue that is examined closely.
struct Ahead<'a> {
    /// Limit on devices per plugin.
    each: usize,
    /// Number of devices left, by plugin.
    plugins: HashMap<&'a str, usize>,
    /// Number of busy devices that may still be listed.
    busy: usize,
}
