//! Chooses who is next: guards first, then the plugin's word, the lock, and a free place.

use std::collections::HashSet;

use flashjob_api::{DeviceState, Reason, VerifyMode, reason};
use flashjob_plugin_host::DeviceType;
use jiff::Timestamp;

use super::draft::Draft;
use super::expose::Asked;
use crate::observed::{Finish, Identity, Instance, PluginView, Sighting};

/// Devices recorded and asked about ahead of their turn, beyond `parallelism`: a device whose name, endpoint and baseline are
/// stored already can start at once when a place frees, without waiting for the next status write.
const AHEAD: usize = 64;

impl<'a> Draft<'a> {
    /// Gives every device without a begun attempt its result, its turn or its reason to wait.
    pub fn work_off_the_queue(&mut self) {
        if self.results.len() >= self.spec.uuid.len() {
            return;
        }
        let mut queue = self.queue();
        self.judge_duplicates(&mut queue);
        if let Some((reason, message)) = self.stopped() {
            for uid in queue {
                match reason {
                    reason::JOB_STOPPED => self.skip(&uid, reason, &message),
                    reason => self.fail(&uid, reason, &message),
                }
            }
            return;
        }
        let mut places = self.spec.parallelism.saturating_sub(self.occupied());
        let mut ahead = places + AHEAD;
        for uid in queue {
            if !self.passes_guards(&uid) || !self.record_ahead(&uid, &mut ahead) {
                continue;
            }
            if self.may_start(&uid, places) {
                places -= 1;
                self.start(&uid);
            }
        }
    }

    /// Devices without a result and without a begun attempt; those that had their turn go behind those that had none.
    fn queue(&self) -> Vec<String> {
        let waiting = |uid: &&String| {
            let pending = self.records.get(*uid).is_none_or(|record| record.state == DeviceState::Pending);
            pending && !self.results.contains_key(*uid)
        };
        let mut queue: Vec<&String> = self.spec.uuid.iter().filter(waiting).collect();
        let turn = |uid: &String| self.records.get(uid).and_then(|record| record.waits_until()).unwrap_or(Timestamp::MIN);
        queue.sort_by_key(|uid| turn(uid));
        queue.into_iter().cloned().collect()
    }

    /// One device under two uids is flashed once, under the uid that began or stands first.
    fn judge_duplicates(&mut self, queue: &mut Vec<String>) {
        let begun = self.spec.uuid.iter().filter(|uid| match self.results.get(*uid) {
            Some(finish) => *finish == Finish::Completed,
            None => self.records.get(*uid).is_some_and(|record| record.in_flight()),
        });
        let mut seen: HashSet<Identity> = begun.flat_map(|uid| self.identities(uid)).collect();
        // In the order of the spec, so that waiting for a retry does not make the other uid the first.
        let queued: HashSet<&str> = queue.iter().map(String::as_str).collect();
        let spec = self.spec;
        for uid in spec.uuid.iter().filter(|uid| queued.contains(uid.as_str())) {
            let Some(instance) = self.instance(uid) else { continue };
            let identities = instance.identities(spec.host_endpoint.as_deref());
            if identities.iter().any(|identity| seen.contains(identity)) {
                let message = format!("Instance {} is the same device as another uid of this job", instance.name);
                self.skip(uid, reason::DUPLICATE_DEVICE, &message);
            }
            seen.extend(identities);
        }
        queue.retain(|uid| !self.results.contains_key(uid));
    }

    /// Why nothing more is started, ever.
    fn stopped(&mut self) -> Option<(Reason, String)> {
        if self.job_deadline_passed() {
            return Some((reason::DEADLINE_EXCEEDED, "activeDeadlineSeconds of the job has passed".to_owned()));
        }
        let budget = self.spec.max_failed_devices?.of(self.spec.uuid.len());
        let failed = self.results.values().filter(|finish| **finish == Finish::Failed).count();
        (failed > budget).then(|| (reason::JOB_STOPPED, format!("{failed} devices failed, maxFailedDevices allows {budget}")))
    }

    /// Devices in flight: those whose Pod ended do not count, those that must still prove themselves do.
    fn occupied(&self) -> usize {
        let active = self.records.values().filter(|record| match record.state {
            DeviceState::Exposing | DeviceState::Flashing | DeviceState::Lost => !self.released.contains(&record.uid),
            _ => false,
        });
        let verifying = self.records.values().filter(|record| record.state == DeviceState::Verifying).count();
        let kept = match self.spec.verify.mode {
            Some(VerifyMode::Required) => verifying,
            _ => verifying.saturating_sub(self.spec.parallelism),
        };
        active.count() + kept
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
            && !wanted.eq_ignore_ascii_case(is)
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

    fn device_type(&self, uid: &str) -> Option<DeviceType> {
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

    /// Records a device that comes soon, and asks its plugin. False: it is not its turn, or it has its result.
    fn record_ahead(&mut self, uid: &str, ahead: &mut usize) -> bool {
        if *ahead == 0 {
            return false;
        }
        *ahead -= 1;
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
        });
        let attempt = self.records.get(uid).map_or(1, |record| record.attempt);
        let Some(plugin) = self.plugin_for(uid) else { return false };
        if let Err(why) = &plugin.ready {
            let message = format!("plugin {} is not ready: {why}", plugin.name);
            self.waits(reason::PLUGIN_NOT_READY, &message);
            return false;
        }
        match self.built(uid, attempt, plugin) {
            Asked::Built(built) => self.granted(uid, attempt, plugin, &built),
            Asked::Wait | Asked::Over => false,
        }
    }

    /// Whether the device may go now: its pause is over, nobody else flashes it, and there is a place.
    fn may_start(&mut self, uid: &str, places: usize) -> bool {
        let until = self.records.get(uid).and_then(|record| record.waits_until());
        if let Some(until) = until.filter(|until| *until > self.now()) {
            self.wake(until);
            return false;
        }
        let holder = self.identities(uid).iter().find_map(|identity| self.observed.holders.get(identity)).cloned();
        if let Some(holder) = holder {
            let message = format!("FlashJob {} is flashing this device (uid {})", holder.job, holder.uid);
            self.waits(reason::DEVICE_BUSY, &message);
            self.set(uid, DeviceState::Pending, |record| {
                record.reason = Some(reason::DEVICE_BUSY.name.to_owned());
                record.message = Some(message);
            });
            return false;
        }
        places > 0 && !self.spec.suspend
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
