//! The request that describes an attempt to a plugin.

use std::collections::BTreeMap;

use flashjob_api::{DeviceStatus, EffectiveSpec};
use flashjob_types::plugin::{Device, Request};
use serde_json::{Map, Value};

use super::draft::Draft;
use crate::flashjob::observed::{Endpoint, Instance, JobKey, PluginView};

/// Facts about one device of a job, from which a request is composed.
#[derive(Clone, Copy, Debug)]
pub struct DeviceFacts<'a> {
    /// The job.
    pub job: &'a JobKey,
    /// The job's spec.
    pub spec: &'a EffectiveSpec,
    /// Reference of the firmware.
    pub firmware: &'a str,
    /// The device's uid in the spec.
    pub uid: &'a str,
    /// The device as Akri describes it.
    pub instance: Option<&'a Instance>,
    /// Stored record of the device, used where Akri no longer has an Instance of it.
    pub record: Option<&'a DeviceStatus>,
}

/// Returns the request for one attempt. `settings` are the effective ones; `image` is that of the
/// flash Pod where the FlashJob names none.
#[must_use]
pub fn request(
    facts: DeviceFacts<'_>,
    attempt: u32,
    settings: String,
    image: Option<&str>,
) -> Request {
    let DeviceFacts { job, spec, firmware, uid, instance, record } = facts;
    // Canonical, so that plugin and flash program cannot read another host in it than the lock
    // does.
    let overriding = spec.host_endpoint.as_deref().map(canonical);
    let endpoint = overriding
        .or_else(|| instance.and_then(|instance| instance.endpoint().map(str::to_owned)));
    let device_type = instance.and_then(|instance| instance.device_type());
    let device_type =
        device_type.or_else(|| spec.device.as_deref().and_then(|text| text.parse().ok()));
    let application = instance.and_then(|instance| instance.application_type().map(str::to_owned));
    let properties = instance.iter().flat_map(|instance| instance.properties.iter());
    let name = instance
        .map(|instance| instance.name.clone())
        .or_else(|| record.and_then(|record| record.name.clone()));
    Request {
        namespace: job.namespace.clone(),
        job: job.name.clone(),
        device: Device {
            uid: uid.to_owned(),
            name: name.unwrap_or_default(),
            endpoint: endpoint.or_else(|| record.and_then(|record| record.host_endpoint.clone())),
            device_type: device_type.map(|kind| kind.to_string()).unwrap_or_default(),
            application_type: application.or_else(|| spec.application_type.clone()),
            reported_version: instance.and_then(|instance| instance.version().map(str::to_owned)),
            nodes: instance.map(|instance| instance.nodes.clone()).unwrap_or_default(),
            properties: properties
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        },
        firmware: firmware.to_owned(),
        version: spec.version.clone(),
        image: spec.flashjob_pod_image.clone().or_else(|| image.map(str::to_owned)),
        settings,
        attempt,
    }
}

impl Draft<'_> {
    /// Returns the request that describes an attempt to a plugin.
    pub fn request(&self, uid: &str, attempt: u32, plugin: Option<&PluginView>) -> Request {
        let spec = self.spec;
        let instance = self.instance(uid).map(AsRef::as_ref);
        let facts = DeviceFacts {
            job: &self.observed.job.key,
            spec,
            firmware: self.firmware(),
            uid,
            instance,
            record: self.records.get(uid),
        };
        let effective = |plugin: &PluginView| {
            settings(&plugin.name, &plugin.settings, &spec.settings, &plugin.locked_settings)
        };
        let image = plugin.and_then(|plugin| plugin.flash_image.as_deref());
        let settings = plugin.map_or_else(|| "{}".to_owned(), effective);
        request(facts, attempt, settings, image)
    }
}

/// Effective settings: those of the plugin in the configuration, overridden by those of a FlashJob
/// or of the template of a FlashRollout, then by the locked ones of the configuration (RFC 7396).
#[must_use]
pub fn settings(
    plugin: &str,
    configured: &Map<String, Value>,
    written: &BTreeMap<String, Map<String, Value>>,
    locked: &Map<String, Value>,
) -> String {
    let mut settings = Value::Object(configured.clone());
    if let Some(written) = written.get(plugin) {
        json_patch::merge(&mut settings, &Value::Object(written.clone()));
    }
    // Last, so that neither a FlashJob nor an explicit null in one changes a locked setting.
    json_patch::merge(&mut settings, &Value::Object(locked.clone()));
    settings.to_string()
}

/// Endpoint that a FlashJob sets, in the form `host:port` in which plugins and flash programs get
/// it.
pub(super) fn canonical(endpoint: &str) -> String {
    Endpoint::read(endpoint).map_or_else(|| endpoint.to_owned(), |endpoint| endpoint.to_string())
}
