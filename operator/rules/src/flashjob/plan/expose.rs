//! An attempt before its Pod: the Service is created, its address awaited, the facts stored, and
//! the Pod created.

use flashjob_api::{DeviceState, Exposure, reason};
use flashjob_types::CallError;
use flashjob_types::plugin::{self, PluginError};

use super::draft::Draft;
use super::firmware::Proof;
use super::objects::DescribedAttempt;
use super::steps::Step;
use crate::flashjob::make;
use crate::flashjob::observed::{AddressWish, Built, PluginView, Question, Service};

/// Result of asking a plugin.
pub(super) enum BuildAnswer {
    /// The plugin has answered.
    Built(std::sync::Arc<Built>),
    /// The plugin is being asked, or cannot be asked at the moment.
    Wait,
    /// The device has got its result, or its next attempt.
    Over,
}

impl Draft<'_> {
    /// Advances a device whose attempt has begun towards its Pod.
    pub fn expose(&mut self, uid: &str) {
        let attempt = self.records.get(uid).map_or(1, |record| record.attempt.max(1));
        let name = self.attempt_name(uid, attempt);
        // The device, or its uid in the spec, disappeared after its turn had come. No Pod exists
        // yet, so nothing is counted as an attempt.
        if self.instance(uid).is_none() || !self.is_in_spec(uid) {
            return self.back_to_queue(uid, None);
        }
        // If plans changed while a status write was in flight, two jobs may have stored that they
        // begin with the same device.
        if self.held_by_another(uid).is_some() {
            return self.back_to_queue(uid, None);
        }
        if self.job_deadline_passed() {
            return self.fail(
                uid,
                reason::DEADLINE_EXCEEDED,
                "the job ran longer than activeDeadlineSeconds",
            );
        }
        // The policy was added after the attempt had begun.
        if self.proof(uid) != Proof::Proven {
            return self.back_to_queue(uid, None);
        }
        // The record, which locks the device, is stored for the device that is flashed.
        if self.has_moved(uid) || !self.is_reachable(uid) {
            return self.back_to_queue(uid, None);
        }
        // Somebody else flashed the device since its turn came. With the old baseline, that version
        // would count as proof of a Pod that has not begun.
        if attempt == 1 && self.has_changed_to_the_version(uid) {
            return self.back_to_queue(uid, None);
        }
        // While this attempt waited, the device reported the result of one that was given up.
        if attempt > 1 && self.is_proven(uid) {
            return self.flashed(uid, plugin::Proof::ReportedVersion);
        }
        self.set(uid, DeviceState::Exposing, |record| record.pod = Some(name.clone()));
        let Some(plugin) = self.plugin_for(uid) else { return self.back_to_queue(uid, None) };
        let built = match self.built(uid, attempt, plugin) {
            BuildAnswer::Built(built) => built,
            // The device would keep its place for as long as the plugin is unavailable.
            BuildAnswer::Wait if self.can_be_asked(plugin).is_err() => {
                return self.back_to_queue(uid, None);
            }
            BuildAnswer::Wait => return self.note_queued(uid),
            BuildAnswer::Over => return,
        };
        let Ok(flash) = &built.pod else { return };
        let described =
            DescribedAttempt { uid, number: attempt, plugin, digest: &built.digest, flash };
        if flash.ports.is_empty() {
            return self.make_pod(described, None, make::slot(&name));
        }
        if self.spec.exposure == Exposure::Pooled {
            return self.expose_pooled(described);
        }
        let Some(service) = self.service(&name) else {
            return self.make_service(described, &name, None);
        };
        let wish = self.address_wish(uid, flash.needs_ip);
        if !service.forwards(&flash.ports) {
            return self.replace_service(uid, &wish, service);
        }
        match wish.choose(&service.addresses) {
            Some(address) if !service.deleting => {
                let text = address.text.clone();
                self.make_pod(described, Some(&text), make::slot(&name));
            }
            _ => {
                let addresses = service.addresses.clone();
                self.await_address(uid, &wish, &addresses);
            }
        }
    }

    /// Deletes the Service of an attempt whose plugin now names other ports: since it was created,
    /// the plugin or its settings have changed. The attempt has no Pod yet, so no device uses the
    /// Service. Once it is gone, another one is created.
    fn replace_service(&mut self, uid: &str, wish: &AddressWish, service: &Service) {
        self.await_address(uid, wish, &[]);
        let state = self.records.get(uid).map(|record| record.state);
        // If the wait is over, the Service is deleted as that of any attempt that is over.
        if state == Some(DeviceState::Exposing) && !service.deleting {
            self.step(Step::DeleteService {
                name: service.name.clone(),
                uid: service.uid.clone(),
            });
        }
    }

    /// Returns true if Akri reports the device under another name or address than the record.
    fn has_moved(&self, uid: &str) -> bool {
        let (Some(record), Some(instance)) = (self.records.get(uid), self.instance(uid)) else {
            return false;
        };
        let is_elsewhere = || record.host_endpoint.as_deref() != instance.endpoint();
        record.name.as_ref() != Some(&instance.name)
            || self.spec.host_endpoint.is_none() && is_elsewhere()
    }

    /// Returns true if the Instance tells how to reach the device. A plugin would refuse it for
    /// good if it did not.
    fn is_reachable(&self, uid: &str) -> bool {
        let overriding = self.spec.host_endpoint.as_deref();
        self.instance(uid).is_some_and(|instance| instance.has_a_way(overriding))
    }

    /// Asks the plugin once per attempt, state of the device, and configuration.
    pub fn built(&mut self, uid: &str, attempt: u32, plugin: &PluginView) -> BuildAnswer {
        let name = self.attempt_name(uid, attempt);
        // An answer for another reference is asked for again: since then the firmware may have
        // been pinned to a digest, and a Pod built before would fetch the tag. The same goes for
        // a device that changed, as the answer may contain an address that now is another
        // device's, and for other settings.
        let instance = self.instance(uid);
        let answered = self.observed.answers.built.get(uid);
        let answered = answered.filter(|built| {
            built.attempt == name
                && built.firmware == self.firmware()
                && built.instance.as_ref() == instance
                && built.configuration == self.observed.plugin_configuration
        });
        let Some(built) = answered else {
            let Ok(ready) = &plugin.ready else { return BuildAnswer::Wait };
            let request = Box::new(self.request(uid, attempt, Some(plugin)));
            self.ask(Question::Build {
                attempt: name,
                plugin: plugin.name.clone(),
                digest: ready.digest.clone(),
                instance: instance.cloned(),
                configuration: self.observed.plugin_configuration,
                request,
            });
            return BuildAnswer::Wait;
        };
        let message = |text: &str| format!("plugin {}: {text}", plugin.name);
        match &built.pod {
            Ok(_) => return BuildAnswer::Built(built.clone()),
            Err(CallError::Refused(error)) => {
                // A plugin has neither I/O nor a clock, so the same request gets the same refusal:
                // only its own internal errors are tried again.
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
        BuildAnswer::Over
    }
}
