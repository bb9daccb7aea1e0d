//! An attempt before its Pod: the Service is made, its address awaited, the facts stored, the Pod
//! made.

use flashjob_api::{DeviceState, Exposure, Reason, reason};
use flashjob_types::plugin::{FlashPod, PluginError};
use flashjob_types::{CallError, Digest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Step;
use super::draft::Draft;
use super::firmware::Proof;
use crate::flashjob::make::{self, Attempt};
use crate::flashjob::observed::{
    Address, AddressWish, Built, Endpoint, PluginView, Question, Refused, Service,
};

/// Longest message about a request that fails, in characters.
const MESSAGE_LENGTH: usize = 512;
/// Kept addresses that a message names.
const SHOWN_KEPT: usize = 5;

/// Consequence of a plugin's answer.
pub(super) enum Asked {
    /// The answer is there.
    Built(std::sync::Arc<Built>),
    /// The plugin is asked, or cannot be for the moment.
    Wait,
    /// The device has its result, or its next attempt.
    Over,
}

impl Draft<'_> {
    /// Brings a device whose attempt has begun to its Pod.
    pub fn expose(&mut self, uid: &str) {
        let attempt = self.records.get(uid).map_or(1, |record| record.attempt.max(1));
        let name = self.attempt_name(uid, attempt);
        if self.instance(uid).is_none() || !self.wanted(uid) {
            return self.back_to_queue(uid, None);
        }
        // A status that was on its way when the plans chose differently can say that two jobs begin
        // with one device.
        if self.held_by_another(uid).is_some() {
            return self.back_to_queue(uid, None);
        }
        if self.job_deadline_passed() {
            return self.fail(
                uid,
                reason::DEADLINE_EXCEEDED,
                "activeDeadlineSeconds of the job has passed",
            );
        }
        // The policy came after its attempt had begun.
        if self.proof(uid) != Proof::Proven {
            return self.back_to_queue(uid, None);
        }
        self.set(uid, DeviceState::Exposing, |record| record.pod = Some(name.clone()));
        let Some(plugin) = self.plugin_for(uid) else { return self.back_to_queue(uid, None) };
        let built = match self.built(uid, attempt, plugin) {
            Asked::Built(built) => built,
            // It would keep its place for as long as the plugin is away.
            Asked::Wait if self.can_be_asked(plugin).is_err() => {
                return self.back_to_queue(uid, None);
            }
            Asked::Wait | Asked::Over => return,
        };
        let Ok(flash) = &built.pod else { return };
        if flash.ports.is_empty() {
            return self.make_pod(
                uid,
                attempt,
                plugin,
                &built.digest,
                flash,
                None,
                make::slot(&name),
            );
        }
        if self.spec.exposure == Exposure::Pooled {
            return self.expose_pooled(uid, attempt, plugin, &built.digest, flash);
        }
        let Some(service) = self.service(&name) else {
            return self.make_service(uid, attempt, plugin, &built.digest, flash, &name, None);
        };
        let wish = self.address_wish(uid, flash.needs_ip);
        match wish.choose(&service.addresses) {
            Some(address) if !service.deleting => {
                let text = address.text.clone();
                self.make_pod(
                    uid,
                    attempt,
                    plugin,
                    &built.digest,
                    flash,
                    Some(&text),
                    make::slot(&name),
                );
            }
            _ => {
                let given = service.addresses.clone();
                self.await_address(uid, &wish, &given);
            }
        }
    }

    /// Asks the plugin, once for an attempt.
    pub fn built(&mut self, uid: &str, attempt: u32, plugin: &PluginView) -> Asked {
        let name = self.attempt_name(uid, attempt);
        let answered = self.observed.answers.built.get(uid);
        let answered =
            answered.filter(|built| built.attempt == name && built.firmware == self.firmware());
        let Some(built) = answered else {
            let Ok(ready) = &plugin.ready else { return Asked::Wait };
            let request = Box::new(self.request(uid, attempt, Some(plugin)));
            self.ask(Question::Build {
                attempt: name,
                plugin: plugin.name.clone(),
                digest: ready.digest.clone(),
                request,
            });
            return Asked::Wait;
        };
        let message = |text: &str| format!("plugin {}: {text}", plugin.name);
        match &built.pod {
            Ok(_) => return Asked::Built(built.clone()),
            Err(CallError::Refused(error)) => {
                let reason = match error {
                    PluginError::InvalidSettings(_) => reason::SETTINGS_REJECTED,
                    PluginError::UnsupportedDevice(_) | PluginError::InvalidRequest(_) => {
                        reason::UNSUPPORTED_DEVICE
                    }
                    PluginError::Internal(_) => reason::PLUGIN_FAILED,
                };
                match reason {
                    reason::PLUGIN_FAILED => {
                        self.fail_attempt(uid, reason, &message(&error.to_string()))
                    }
                    reason => self.fail(uid, reason, &message(&error.to_string())),
                }
            }
            Err(error) => {
                self.fail_attempt(uid, reason::PLUGIN_FAILED, &message(&error.to_string()))
            }
        }
        Asked::Over
    }

    /// All that the objects of an attempt are made from; None: the device is gone.
    fn attempt<'b>(
        &'b self,
        uid: &'b str,
        number: u32,
        plugin: &'b PluginView,
        digest: &'b Digest,
        flash: &'b FlashPod,
        slot: &'b str,
    ) -> Option<Attempt<'b>> {
        Some(Attempt {
            job: &self.observed.job,
            spec: self.spec,
            uid,
            instance: self.instance(uid)?,
            number,
            plugin: &plugin.name,
            digest,
            flash,
            grants: &plugin.grants,
            slot,
        })
    }

    /// Returns true if plugin and job ask only for what is granted; if not, the device has failed.
    pub fn granted(&mut self, uid: &str, number: u32, plugin: &PluginView, built: &Built) -> bool {
        let Ok(flash) = &built.pod else { return false };
        let attempt = self.attempt(uid, number, plugin, &built.digest, flash, "");
        let checked = attempt.map(|attempt| make::check(&attempt, &self.observed.policy));
        match checked {
            Some(Ok(())) => true,
            Some(Err(denied)) => {
                self.fail(uid, reason::GRANT_DENIED, &denied.0);
                false
            }
            None => false,
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one attempt, each from another room"
    )]
    pub(super) fn make_service(
        &mut self,
        uid: &str,
        number: u32,
        plugin: &PluginView,
        digest: &Digest,
        flash: &FlashPod,
        name: &str,
        pool: Option<&str>,
    ) {
        if !self.may_ask_for(uid, Refused::Service, name) {
            return;
        }
        let Some(attempt) = self.attempt(uid, number, plugin, digest, flash, make::slot(name))
        else {
            return;
        };
        let service = make::service(&attempt, name, pool, &self.observed.policy);
        if pool.is_some() {
            self.note_service(name, pool.unwrap_or_default());
        }
        self.step(Step::CreateService(Box::new(service)));
        self.note_failing(uid, name);
    }

    /// Says why an object is not there yet, where its creation fails again and again.
    pub(super) fn note_failing(&mut self, uid: &str, name: &str) {
        let Some(error) = self.observed.failing.get(name) else { return };
        let message: String =
            format!("{name} cannot be created: {error}").chars().take(MESSAGE_LENGTH).collect();
        self.waits(reason::REQUEST_FAILING, &message);
        self.set(uid, DeviceState::Exposing, |record| {
            record.reason = Some(reason::REQUEST_FAILING.name.to_owned());
            record.message = Some(message);
        });
    }

    /// Makes the Pod, once the facts that a restart would need are stored.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one attempt, each from another room"
    )]
    pub(super) fn make_pod(
        &mut self,
        uid: &str,
        number: u32,
        plugin: &PluginView,
        digest: &Digest,
        flash: &FlashPod,
        address: Option<&str>,
        slot: &str,
    ) {
        let name = self.attempt_name(uid, number);
        if !self.may_ask_for(uid, Refused::Pod, &name) {
            return;
        }
        let had_to_wait = self.observed.refusals.contains_key(&name);
        self.set(uid, DeviceState::Exposing, |record| {
            record.external_ip = address.map(str::to_owned);
            if !had_to_wait {
                record.reason = None;
                record.message = None;
            }
        });
        if !self.is_stored(uid) {
            self.plan.urgent = true;
            return;
        }
        if self.observed.withdrawn.contains(&name) {
            return;
        }
        let Some(attempt) = self.attempt(uid, number, plugin, digest, flash, slot) else { return };
        match make::pod(&attempt, &name, address, &self.observed.policy) {
            Ok(pod) => {
                self.step(Step::CreatePod(Box::new(pod)));
                self.note_failing(uid, &name);
            }
            Err(denied) => self.fail(uid, reason::GRANT_DENIED, &denied.0),
        }
    }

    /// Returns true if a restarted operator would find name, endpoint, attempt and baseline of this
    /// device.
    fn is_stored(&self, uid: &str) -> bool {
        let (Some(stored), Some(record)) = (self.observed.stored(uid), self.records.get(uid))
        else {
            return false;
        };
        self.same_run
            && self.observed.job.status.run.is_some()
            && stored.attempt == record.attempt
            && stored.name == record.name
            && stored.host_endpoint == record.host_endpoint
            && stored.baseline_version == record.baseline_version
    }

    /// Requirements on an address for this device.
    pub(super) fn address_wish(&self, uid: &str, needs_ip: bool) -> AddressWish {
        let endpoint = self.records.get(uid).and_then(|record| record.host_endpoint.as_deref());
        AddressWish {
            needs_ip,
            asked: self.spec.external_ip.as_deref().and_then(|text| text.parse().ok()),
            device: endpoint.and_then(Endpoint::read).and_then(|endpoint| endpoint.address()),
        }
    }

    pub(super) fn await_address(&mut self, uid: &str, wish: &AddressWish, given: &[Address]) {
        let Some(record) = self.records.get(uid) else { return };
        let since = record.holds_since().unwrap_or_else(|| self.now());
        // The device must not be sent to an address that nobody asked for.
        let other = wish.asked.zip(given.first()).map(|(asked, given)| {
            format!("the load balancer gives {}, not {asked} as externalIP asks", given.text)
        });
        let kept = self.kept_addresses();
        let message = other
            .clone()
            .unwrap_or_else(|| format!("the Service has no external address yet{kept}"));
        self.set(uid, DeviceState::Exposing, |record| {
            record.reason = Some(reason::WAITING_FOR_ADDRESS.name.to_owned());
            record.message = Some(message);
        });
        let seconds = self.spec.address_timeout_seconds;
        if !self.over(since, seconds) {
            return;
        }
        let message = format!("no external address within {seconds} s");
        if let Some(other) = other {
            return self.fail_attempt(uid, reason::ADDRESS_TIMEOUT, &format!("{message}: {other}"));
        }
        // What the load balancer gives as host names frees no IP address, however long one waits
        // for it.
        let named = |service: &Service| {
            !service.addresses.is_empty()
                && !service.addresses.iter().any(|address| wish.fits(address))
        };
        if self.observed.services.iter().any(|service| named(service)) {
            let message = format!(
                "{message}: the load balancer gives a host name alone, and the device needs an IP address"
            );
            return self.fail_attempt(uid, reason::ADDRESS_TIMEOUT, &message);
        }
        if self.observed.addresses_in_use {
            let message = format!("{message}{kept}");
            return self.back_to_queue(uid, Some((reason::WAITING_FOR_ADDRESS, &message)));
        }
        self.fail_attempt(uid, reason::ADDRESS_TIMEOUT, &message);
    }

    /// Names the addresses that failed attempts keep, as the end of a sentence.
    fn kept_addresses(&self) -> String {
        let kept = &self.observed.kept_addresses;
        let shown = kept.iter().take(SHOWN_KEPT).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match kept.len().saturating_sub(SHOWN_KEPT) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if kept.is_empty() {
            return String::new();
        }
        let seconds = self.observed.periods.late_callback_seconds;
        format!("; kept for {seconds} s after an attempt that failed: {shown}{more}")
    }

    /// The same attempt waits in the queue again, at its end.
    pub(super) fn back_to_queue(&mut self, uid: &str, why: Option<(Reason, &str)>) {
        let now = self.now();
        self.set(uid, DeviceState::Pending, |record| {
            record.not_before = Some(Time(now));
            record.pod = None;
            record.external_ip = None;
            record.reason = why.map(|(reason, _)| reason.name.to_owned());
            record.message = why.map(|(_, message)| message.to_owned());
        });
        if !self.wanted(uid) {
            self.records.remove(uid);
        }
    }
}
