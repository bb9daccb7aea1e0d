//! The guards: they check that a device exists, may be flashed by this job and matches the job,
//! and determine the plugin that serves it.

use flashjob_api::{Reason, VerifyMode, reason};
use flashjob_types::DeviceType;
use jiff::Timestamp;

use super::draft::{Draft, GuardFinding};
use super::serving::serving;
use crate::flashjob::observed::{Endpoint, Finish, Instance, PluginView, Sighting, Traits};

impl<'a> Draft<'a> {
    /// Resolves the device and applies the guards. Returns its plugin. None: it has its result, or
    /// waits.
    pub(super) fn passes_guards(&mut self, uid: &str, place: usize) -> Option<&'a PluginView> {
        let observed = self.observed;
        let instance = match observed.devices[place].as_ref()? {
            Sighting::Seen(instance) => instance,
            Sighting::Forbidden(instance) => {
                let message = format!(
                    "Instance {} is in namespace {}, which this FlashJob may not flash",
                    instance.name, instance.namespace
                );
                self.fail(uid, reason::DEVICE_NOT_ALLOWED, &message);
                return None;
            }
            // Akri deletes an Instance at the first scan that misses its device, and a device that
            // reboots comes back with another uid, so absence proves nothing for a while.
            Sighting::Missing(since) => {
                self.await_device(
                    uid,
                    *since,
                    reason::UNKNOWN_DEVICE,
                    "Akri has no Instance with this uid",
                );
                return None;
            }
        };
        // The Pod connects to this endpoint, so it is checked here: by another spelling or a host
        // name an author could name a device that is not theirs to flash.
        if let Some(endpoint) = &self.spec.host_endpoint {
            let names = &observed.policy.host_names;
            if let Err(why) = Endpoint::overriding(endpoint, instance.endpoint(), names) {
                let message = format!("spec.hostEndpoint {endpoint:?}: {why}");
                self.fail(uid, reason::DEVICE_NOT_ALLOWED, &message);
                return None;
            }
        }
        if !instance.reachable(self.spec.host_endpoint.as_deref()) {
            let since = self.observed.unreachable.get(uid).copied().unwrap_or_else(|| self.now());
            let fault = instance
                .fault
                .as_deref()
                .unwrap_or("has no node, or neither an endpoint nor a bus path");
            let message = format!("Instance {} {fault}", instance.name);
            self.await_device(uid, since, reason::DEVICE_UNREACHABLE, &message);
            return None;
        }
        // No statement about a device is possible before plugins are configured.
        if observed.plugins.is_empty() {
            let message = "the operator has no device plugins; add one under plugins in its \
                           configuration";
            self.waits(reason::PLUGIN_NOT_READY, message);
            return None;
        }
        match self.guard(uid, instance) {
            Ok(plugin) => Some(plugin),
            Err((Finish::Skipped, reason, message)) => {
                self.skip(uid, reason, &message);
                None
            }
            Err((_, reason, message)) => {
                self.fail(uid, reason, &message);
                None
            }
        }
    }

    /// Applies the guards to a device. The devices of a fleet are alike, so a finding is reused
    /// for all devices with the same traits.
    fn guard(&mut self, uid: &str, instance: &'a Instance) -> GuardFinding<'a> {
        let traits = instance.traits();
        // After an attempt the device may report the new version because that attempt flashed it,
        // which must not count as current from before.
        if self.records.get(uid).is_some_and(|record| record.attempt > 1) {
            return self.guard_traits(&traits, true);
        }
        if let Some(finding) = self.guarded.get(&traits) {
            return finding.clone();
        }
        let guarded = self.guard_traits(&traits, false);
        self.guarded.insert(traits, guarded.clone());
        guarded
    }

    fn guard_traits(&self, traits: &Traits<'_>, has_begun: bool) -> GuardFinding<'a> {
        let spec = self.spec;
        let mismatch = |what: &str, is: &str, requirement: &str| {
            Err((
                Finish::Failed,
                reason::DEVICE_TYPE_MISMATCH,
                format!("the device's {what} is {is}, but the job requires {requirement}"),
            ))
        };
        // Both sides are parsed, because `esp32-s3` and `esp32s3` are two spellings of one type.
        if let (Some(requirement), Some(is)) = (
            spec.device.as_deref(),
            traits.device_type.and_then(|text| text.parse::<DeviceType>().ok()),
        ) && requirement.parse().ok() != Some(is.clone())
        {
            return mismatch("type", is.as_ref(), requirement);
        }
        if let (Some(requirement), Some(is)) =
            (spec.application_type.as_deref(), traits.application_type)
            && lower_case_without_dashes(requirement) != lower_case_without_dashes(is)
        {
            return mismatch("application type", is, requirement);
        }
        let current = traits.version == Some(spec.version.as_str());
        if spec.skip_if_current && current && !has_begun {
            return Err((
                Finish::Skipped,
                reason::ALREADY_CURRENT,
                format!("the device already reports version {}", spec.version),
            ));
        }
        if spec.verify.mode == Some(VerifyMode::Required) && current && !has_begun {
            return Err((
                Finish::Failed,
                reason::VERSION_UNPROVABLE,
                format!(
                    "the device already reports version {}, so verify.mode Required cannot be met",
                    spec.version
                ),
            ));
        }
        let kind = self.device_type_of(traits);
        kind.as_ref().and_then(|kind| serving(&self.observed.plugins, kind)).ok_or_else(|| {
            let message = self.no_plugin(traits, kind.as_ref());
            (Finish::Failed, reason::NO_PLUGIN_FOR_DEVICE, message)
        })
    }

    /// Message that no plugin serves this type of device, with the types that plugins do serve.
    fn no_plugin(&self, traits: &Traits<'_>, kind: Option<&DeviceType>) -> String {
        let kind = match (kind, traits.device_type) {
            (Some(kind), Some(reported)) if kind.as_ref() != reported => {
                format!("device type {kind} (DEVICE {reported:?})")
            }
            (Some(kind), _) => format!("device type {kind}"),
            (None, Some(reported)) => {
                format!("DEVICE {reported:?}, which is not a valid device type")
            }
            (None, None) => {
                "a device of unknown type: its Instance has no DEVICE property, and the job sets \
                 no spec.device"
                    .to_owned()
            }
        };
        let served: Vec<String> = self
            .observed
            .plugins
            .iter()
            .filter(|plugin| !plugin.device_types.is_empty())
            .map(|plugin| {
                let types: Vec<String> =
                    plugin.device_types.iter().map(ToString::to_string).collect();
                format!("plugin {} serves {}", plugin.name, types.join(", "))
            })
            .collect();
        let served = if served.is_empty() {
            "no plugin serves any device type".to_owned()
        } else {
            served.join("; ")
        };
        format!("no configured plugin serves {kind}; {served}")
    }

    fn await_device(&mut self, uid: &str, since: Timestamp, reason: Reason, message: &str) {
        let seconds = self.observed.periods.unknown_device_seconds;
        if self.over(since, seconds) {
            return self.fail(
                uid,
                reason::UNKNOWN_DEVICE,
                &format!("{message}; waited {seconds} s"),
            );
        }
        self.waits(reason, message);
    }

    pub(super) fn device_type(&self, uid: &str) -> Option<DeviceType> {
        self.device_type_of(
            &self.instance(uid).map(|instance| instance.traits()).unwrap_or_default(),
        )
    }

    fn device_type_of(&self, traits: &Traits<'_>) -> Option<DeviceType> {
        let reported = traits.device_type.and_then(|text| text.parse().ok());
        reported.or_else(|| self.spec.device.as_deref().and_then(|text| text.parse().ok()))
    }

    /// Returns the plugin that serves the device.
    pub(super) fn plugin_for(&self, uid: &str) -> Option<&'a PluginView> {
        serving(&self.observed.plugins, &self.device_type(uid)?)
    }

    /// Checks that the plugin is loaded, and not out of service.
    pub(super) fn can_be_asked(&mut self, plugin: &PluginView) -> Result<(), String> {
        if let Err(why) = &plugin.ready {
            return Err(why.clone());
        }
        match self.observed.answers.out_of_service.get(&plugin.name) {
            Some(until) if *until > self.now() => {
                self.wake(*until);
                Err("it failed several times in a row and is not called for a while".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Lower case, without dashes.
fn lower_case_without_dashes(text: &str) -> String {
    text.chars()
        .filter(|letter| *letter != '-')
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}
