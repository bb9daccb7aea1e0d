//! The Service and the Pod of an attempt, created once everything they need is granted and stored.

use flashjob_api::{DeviceState, reason};
use flashjob_types::Digest;
use flashjob_types::plugin::FlashPod;

use super::draft::Draft;
use super::steps::Step;
use crate::flashjob::make::{self, Attempt};
use crate::flashjob::observed::{Built, PluginView, Refused};
use crate::text;

/// Longest message about a failing request, in characters.
const MESSAGE_LENGTH: usize = 512;

/// An attempt whose flash Pod its plugin has described.
#[derive(Clone, Copy)]
pub(super) struct DescribedAttempt<'a> {
    /// The device's uid in the spec.
    pub uid: &'a str,
    /// From 1.
    pub number: u32,
    /// The plugin.
    pub plugin: &'a PluginView,
    /// Digest of the plugin that answered.
    pub digest: &'a Digest,
    /// The answer.
    pub flash: &'a FlashPod,
}

impl Draft<'_> {
    /// Input for the objects of an attempt. None: the device is gone.
    fn attempt<'b>(
        &'b self,
        described: DescribedAttempt<'b>,
        slot: &'b str,
    ) -> Option<Attempt<'b>> {
        let DescribedAttempt { uid, number, plugin, digest, flash } = described;
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

    /// Returns true if plugin and job request only what is granted; otherwise fails the device.
    pub fn granted(&mut self, uid: &str, number: u32, plugin: &PluginView, built: &Built) -> bool {
        let Ok(flash) = &built.pod else { return false };
        let described = DescribedAttempt { uid, number, plugin, digest: &built.digest, flash };
        let Some(attempt) = self.attempt(described, "") else { return false };
        // Most devices of a job have the same image, and parsing it for each of them took a
        // quarter of the time of a plan.
        let is_known = self.valid_images.contains(&flash.image);
        let image = if is_known { Ok(()) } else { make::check_image(flash) };
        match image.and_then(|()| make::check(&attempt, &self.observed.policy)) {
            Ok(()) if is_known => true,
            Ok(()) => self.valid_images.insert(flash.image.clone()),
            Err(denied) => {
                self.fail(uid, reason::GRANT_DENIED, &denied.0);
                false
            }
        }
    }

    /// Creates the Service with that name, for the device alone or for its pool.
    pub(super) fn make_service(
        &mut self,
        described: DescribedAttempt<'_>,
        name: &str,
        pool: Option<&str>,
    ) {
        if !self.may_ask_for(described.uid, Refused::Service, name) {
            return;
        }
        let Some(attempt) = self.attempt(described, make::slot(name)) else { return };
        let service = make::service(&attempt, name, pool, &self.observed.policy);
        if let Some(pool) = pool {
            self.pools.new_services.insert(name.to_owned(), pool.to_owned());
        }
        self.step(Step::CreateService(Box::new(service)));
        self.note_failing(described.uid, name);
    }

    /// Records why an object does not exist yet, if its creation keeps failing.
    pub(super) fn note_failing(&mut self, uid: &str, name: &str) {
        let Some(error) = self.observed.failing.get(name) else { return };
        let message =
            text::beginning(&format!("{name} cannot be created: {error}"), MESSAGE_LENGTH);
        self.waits(reason::REQUEST_FAILING, &message);
        self.set(uid, DeviceState::Exposing, |record| {
            record.reason = Some(reason::REQUEST_FAILING.name.to_owned());
            record.message = Some(message);
        });
    }

    /// Creates the Pod, once the values that a restart would need are stored.
    pub(super) fn make_pod(
        &mut self,
        described: DescribedAttempt<'_>,
        address: Option<&str>,
        slot: &str,
    ) {
        let uid = described.uid;
        let name = self.attempt_name(uid, described.number);
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
        // A status write whose outcome is unknown takes this attempt back: if it succeeds, no
        // record would name the Pod that is created now.
        if self.observed.withdrawn.contains(&name) {
            return;
        }
        let Some(attempt) = self.attempt(described, slot) else { return };
        match make::pod(&attempt, &name, address, &self.observed.policy) {
            Ok(pod) => {
                self.step(Step::CreatePod(Box::new(pod)));
                self.note_failing(uid, &name);
            }
            // The configuration can have changed since the grants were checked before the device's
            // turn.
            Err(denied) => self.fail(uid, reason::GRANT_DENIED, &denied.0),
        }
    }

    /// Returns true if name, endpoint, attempt and baseline of this device are stored, for an
    /// operator that restarts.
    fn is_stored(&self, uid: &str) -> bool {
        let (Some(stored), Some(record)) = (self.observed.stored(uid), self.records.get(uid))
        else {
            return false;
        };
        self.same_run
            && self.observed.job.status.run.is_some()
            && stored.attempt == record.attempt
            && stored.namespace == record.namespace
            && stored.name == record.name
            && stored.host_endpoint == record.host_endpoint
            // Without the stored baseline, a restarted operator would take the version after the
            // flash for the one before, and could prove nothing.
            && stored.baseline_version == record.baseline_version
    }
}
