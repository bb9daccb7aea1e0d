//! Chooses who is next: guards first, then the plugin's word, the lock, and a free place.

use std::collections::HashMap;

use flashjob_api::{DeviceState, Reason, VerifyMode, reason};
use flashjob_plugin_host::DeviceType;
use jiff::Timestamp;

use super::draft::Draft;
use super::expose::Asked;
use crate::observed::{Finish, Holder, Identity, Instance, PluginView, Sighting};

/// Devices recorded and asked about ahead of their turn, beyond `parallelism`: a device whose name, endpoint and baseline are
/// stored already can start at once when a place frees, without waiting for the next status write.
const AHEAD: usize = 64;
/// Waiting devices of which status says for whom they wait.
const SHOWN_BUSY: usize = 64;

impl<'a> Draft<'a> {
    /// Gives every device without a begun attempt its result, its turn or its reason to wait.
    pub fn work_off_the_queue(&mut self) {
        let mut queue = self.queue();
        if queue.is_empty() {
            return;
        }
        self.judge_duplicates(&mut queue);
        if self.stop(&queue) {
            return;
        }
        let mut places = self.places();
        let mut ahead = Ahead { each: places + AHEAD, plugins: HashMap::new(), busy: SHOWN_BUSY };
        let ready: Vec<&String> = queue.iter().filter(|uid| self.is_ready(uid, &mut ahead)).collect();
        // Some may just have failed: one too many, and nothing starts.
        if self.stop(&queue) {
            return;
        }
        for uid in ready {
            if places == 0 || self.spec.suspend {
                if !self.spec.suspend {
                    self.note_queued(uid);
                }
                continue;
            }
            places -= 1;
            self.start(uid);
        }
    }

    /// Whether the job starts nothing more, ever; then every waiting device gets its result.
    fn stop(&mut self, queue: &[String]) -> bool {
        let Some((reason, message)) = self.stopped() else { return false };
        for uid in queue.iter().filter(|uid| self.result(uid).is_none()).collect::<Vec<_>>() {
            match reason {
                reason::JOB_STOPPED => self.skip(uid, reason, &message),
                reason => self.fail(uid, reason, &message),
            }
        }
        true
    }

    /// Passes the guards, has its plugin's word, its pause is over and nobody else flashes it. What is tested first costs least;
    /// a device that waits for its plugin or for another job takes no other device's turn.
    fn is_ready(&mut self, uid: &str, ahead: &mut Ahead<'a>) -> bool {
        if !self.passes_guards(uid) {
            return false;
        }
        let Some(plugin) = self.plugin_for(uid) else { return false };
        if let Err(why) = self.can_be_asked(plugin) {
            self.waits(reason::PLUGIN_NOT_READY, &format!("plugin {} is not ready: {why}", plugin.name));
            return false;
        }
        if let Some(message) = self.is_busy(uid) {
            self.waits(reason::DEVICE_BUSY, &message);
            if ahead.busy > 0 || self.records.contains_key(uid) {
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

    /// Devices without a result and without a begun attempt. First those whose Service is there already, last those that had
    /// their turn.
    fn queue(&self) -> Vec<String> {
        let spec = self.spec;
        let waiting = |uid: &&String| {
            let pending = self.records.get(*uid).is_none_or(|record| record.state == DeviceState::Pending);
            pending && self.result(uid).is_none()
        };
        let mut queue: Vec<&String> = spec.uuid.iter().filter(waiting).collect();
        queue.sort_by_cached_key(|uid| {
            let record = self.records.get(*uid);
            let turn = record.and_then(|record| record.waits_until()).unwrap_or(Timestamp::MIN);
            let begun = record.is_some_and(|record| {
                turn == Timestamp::MIN && self.service(&self.attempt_name(uid, record.attempt)).is_some_and(|service| !service.deleting)
            });
            (turn, !begun)
        });
        queue.into_iter().cloned().collect()
    }

    /// One device under two uids is flashed once, under the uid that began or stands first.
    fn judge_duplicates(&mut self, queue: &mut Vec<String>) {
        let spec = self.spec;
        let unknown = |uid: &String| {
            self.shown.iter().any(|device| device.uid == *uid && device.reason.as_deref() == Some(reason::UNKNOWN_DEVICE.name))
        };
        let begun = spec.uuid.iter().filter(|uid| match self.result(uid) {
            Some(Finish::Completed) => true,
            Some(Finish::Failed) => !unknown(uid),
            Some(Finish::Skipped) => false,
            None => self.records.get(*uid).is_some_and(|record| record.in_flight() || record.attempt > 1),
        });
        let mut first: HashMap<Identity, &String> = HashMap::new();
        for uid in begun {
            for identity in self.identities(uid) {
                first.entry(identity).or_insert(uid);
            }
        }
        let before = queue.len();
        for uid in &spec.uuid {
            if self.result(uid).is_some() || self.records.get(uid).is_some_and(|record| record.state != DeviceState::Pending) {
                continue;
            }
            let Some(instance) = self.instance(uid) else { continue };
            // One Instance has one uid: only what else makes it one device can be another's too.
            let mut identities = vec![instance.identity.clone()];
            identities.extend(spec.host_endpoint.as_deref().map(Identity::endpoint));
            if let Some(other) = identities.iter().find_map(|identity| first.get(identity).filter(|other| **other != uid)) {
                let message = format!("Instance {} is the same device as uid {other} of this job", instance.name);
                self.skip(uid, reason::DUPLICATE_DEVICE, &message);
                continue;
            }
            first.extend(identities.into_iter().map(|identity| (identity, uid)));
        }
        if !self.results.is_empty() && before > 0 {
            queue.retain(|uid| !self.results.contains_key(uid));
        }
    }

    /// Why nothing more is started, ever.
    fn stopped(&mut self) -> Option<(Reason, String)> {
        if self.job_deadline_passed() {
            return Some((reason::DEADLINE_EXCEEDED, "activeDeadlineSeconds of the job has passed".to_owned()));
        }
        let budget = self.spec.max_failed_devices?.of(self.spec.uuid.len());
        let failed = self.spec.uuid.iter().filter(|uid| self.result(uid) == Some(Finish::Failed)).count();
        (failed > budget).then(|| (reason::JOB_STOPPED, format!("{failed} devices failed, maxFailedDevices allows {budget}")))
    }

    /// How many devices may start. Those whose Pod ended keep no place, those that must still prove themselves do; and where failures
    /// are budgeted a device keeps its place until it is judged, or one more would start before the failure counts.
    fn places(&self) -> usize {
        let required = self.spec.verify.mode == Some(VerifyMode::Required);
        let judged = required || self.spec.max_failed_devices.is_some();
        let active = self.records.values().filter(|record| match record.state {
            DeviceState::Exposing | DeviceState::Flashing | DeviceState::Lost => judged || !self.released.contains(&record.uid),
            _ => false,
        });
        let active = active.count();
        let verifying = self.records.values().filter(|record| record.state == DeviceState::Verifying).count();
        let kept = if required { verifying } else { verifying.saturating_sub(self.spec.parallelism) };
        self.spec.parallelism.saturating_sub(active + kept).min(self.most_in_flight().saturating_sub(active))
    }

    /// Resolves the device and compares it with what the job guards for. False: it has its result, or waits.
    fn passes_guards(&mut self, uid: &str) -> bool {
        let instance = match self.observed.devices.get(uid) {
            Some(Sighting::Seen(instance)) => instance,
            Some(Sighting::Forbidden(instance)) => {
                let message =
                    format!("Instance {} is in namespace {}, which this FlashJob may not flash", instance.name, instance.namespace);
                self.fail(uid, reason::DEVICE_NOT_ALLOWED, &message);
                return false;
            }
            Some(Sighting::Missing(since)) => {
                self.await_device(uid, *since, reason::UNKNOWN_DEVICE, "Akri knows no Instance with this uid");
                return false;
            }
            None => return false,
        };
        if !instance.reachable(self.spec.host_endpoint.as_deref()) {
            let since = self.observed.unreachable.get(uid).copied().unwrap_or_else(|| self.now());
            let message = format!("Instance {} names no node, or neither endpoint nor bus path", instance.name);
            self.await_device(uid, since, reason::DEVICE_UNREACHABLE, &message);
            return false;
        }
        match self.guard(uid, instance) {
            Ok(()) => true,
            Err((Finish::Skipped, reason, message)) => {
                self.skip(uid, reason, &message);
                false
            }
            Err((_, reason, message)) => {
                self.fail(uid, reason, &message);
                false
            }
        }
    }

    fn guard(&self, uid: &str, instance: &Instance) -> Result<(), (Finish, Reason, String)> {
        let spec = self.spec;
        let mismatch = |what: &str, is: &str, wanted: &str| {
            Err((Finish::Failed, reason::DEVICE_TYPE_MISMATCH, format!("the device's {what} is {is}, the job asks for {wanted}")))
        };
        if let (Some(wanted), Some(is)) = (spec.device.as_deref(), instance.device_type())
            && wanted.parse().ok() != Some(is.clone())
        {
            return mismatch("type", is.as_ref(), wanted);
        }
        if let (Some(wanted), Some(is)) = (spec.application_type.as_deref(), instance.application_type())
            && plain(wanted) != plain(is)
        {
            return mismatch("application type", is, wanted);
        }
        let begun = self.records.get(uid).is_some_and(|record| record.attempt > 1);
        let current = instance.version() == Some(spec.version.as_str());
        if spec.skip_if_current && current && !begun {
            return Err((Finish::Skipped, reason::ALREADY_CURRENT, format!("the device already reports version {}", spec.version)));
        }
        if spec.verify.mode == Some(VerifyMode::Required) && current && !begun {
            return Err((
                Finish::Failed,
                reason::VERSION_UNPROVABLE,
                format!("the device already reports version {}, so verify.mode Required cannot be met", spec.version),
            ));
        }
        if self.plugin_for(uid).is_none() {
            let kind = self.device_type(uid).map_or_else(|| "a device of unknown type".to_owned(), |kind| format!("device type {kind}"));
            return Err((Finish::Failed, reason::NO_PLUGIN_FOR_DEVICE, format!("no configured plugin serves {kind}")));
        }
        Ok(())
    }

    fn await_device(&mut self, uid: &str, since: Timestamp, reason: Reason, message: &str) {
        let seconds = self.observed.periods.unknown_device_seconds;
        if self.over(since, seconds) {
            return self.fail(uid, reason::UNKNOWN_DEVICE, &format!("{message} for {seconds} s"));
        }
        self.waits(reason, message);
    }

    pub(super) fn device_type(&self, uid: &str) -> Option<DeviceType> {
        let reported = self.instance(uid).and_then(|instance| instance.device_type());
        reported.or_else(|| self.spec.device.as_deref().and_then(|text| text.parse().ok()))
    }

    /// The plugin that serves the device: the first that names its type, else the first that takes any.
    pub(super) fn plugin_for(&self, uid: &str) -> Option<&'a PluginView> {
        let kind = self.device_type(uid)?;
        let plugins: &'a [PluginView] = &self.observed.plugins;
        let named = plugins.iter().find(|plugin| plugin.device_types.contains(&kind));
        // A plugin that never loaded may turn out to serve the type; until that is known the device waits for it.
        let unknown = || plugins.iter().find(|plugin| plugin.ready.is_err() && plugin.device_types.is_empty() && !plugin.any_type);
        named.or_else(unknown).or_else(|| plugins.iter().find(|plugin| plugin.any_type))
    }

    /// Whether the plugin is loaded, and not out of service.
    pub(super) fn can_be_asked(&mut self, plugin: &PluginView) -> Result<(), String> {
        if let Err(why) = &plugin.ready {
            return Err(why.clone());
        }
        match self.observed.answers.out_of_service.get(&plugin.name) {
            Some(until) if *until > self.now() => {
                self.wake(*until);
                Err("it broke several times in a row and is not asked for a while".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Who else has reserved the device.
    pub(super) fn held_by_another(&self, uid: &str) -> Option<&'a Holder> {
        let holders = &self.observed.holders;
        if holders.is_empty() {
            return None;
        }
        self.identities(uid).iter().find_map(|identity| holders.get(identity))
    }

    /// For whom the device waits.
    fn is_busy(&self, uid: &str) -> Option<String> {
        if let Some(pod) = self.pod_in_the_way(uid) {
            return Some(format!("Pod {} may still be at work on this device", pod.name));
        }
        let holder = self.held_by_another(uid)?;
        Some(format!("FlashJob {} is flashing this device (uid {})", holder.job, holder.uid))
    }

    /// Records a device that comes soon, and asks its plugin. False: the answer is not there, or it has its result.
    fn record_ahead(&mut self, uid: &str, plugin: &'a PluginView) -> bool {
        let Some(instance) = self.instance(uid) else { return false };
        let endpoint = self.spec.host_endpoint.clone().or_else(|| instance.endpoint().map(str::to_owned));
        let (name, version) = (instance.name.clone(), instance.version().map(str::to_owned));
        self.set(uid, DeviceState::Pending, |record| {
            record.attempt = record.attempt.max(1);
            if record.attempt == 1 {
                record.baseline_version = version;
            }
            record.name = Some(name);
            record.host_endpoint = endpoint;
            if record.reason.as_deref() == Some(reason::DEVICE_BUSY.name) {
                record.reason = None;
                record.message = None;
            }
        });
        let attempt = self.records.get(uid).map_or(1, |record| record.attempt);
        match self.built(uid, attempt, plugin) {
            Asked::Built(built) => self.granted(uid, attempt, plugin, &built),
            Asked::Wait | Asked::Over => false,
        }
    }

    fn start(&mut self, uid: &str) {
        self.set(uid, DeviceState::Exposing, |record| {
            record.not_before = None;
            record.reason = None;
            record.message = None;
        });
        self.expose(uid);
    }
}

/// What of the queue is looked at closely.
struct Ahead<'a> {
    /// Devices for each plugin.
    each: usize,
    /// How many are left, by plugin.
    plugins: HashMap<&'a str, usize>,
    /// Busy devices that are still shown.
    busy: usize,
}

/// Without case and dashes.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| *letter != '-').map(|letter| letter.to_ascii_lowercase()).collect()
}
