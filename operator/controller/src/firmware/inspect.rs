//! Inspection of firmware by plugins, each for the device types that it serves. A plugin gets the
//! beginning of the file and its size, and usually little more is fetched. If the file begins late
//! in its layer, or a plugin refuses it, the whole layer is fetched and the plugin is asked again,
//! as only a whole layer can be hashed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flashjob_api::reason;
use flashjob_artifacts::firmware::{Beginning, Beginnings, Firmware, Part};
use flashjob_artifacts::{Digest, Source};
use flashjob_plugin_host::types::{FirmwareFile, Inspection};
use flashjob_plugin_host::{CallError, DeviceType, Plugin};
use flashjob_rules::firmware::ResolveFirmware;
use flashjob_rules::flashjob::plan::request::settings;
use flashjob_rules::flashjob::plan::serving::serving;
use flashjob_rules::world::change::Subject;
use serde_json::{Map, Value};

use super::failure::FirmwareFailure;
use crate::operator::Operator;

/// Longest wait for a plugin that is being loaded, before the status of the subject reports it.
const LOADING: Duration = Duration::from_secs(20);

/// A plugin that inspects firmware, for one type of device.
struct Inspector {
    plugin: Plugin,
    kind: DeviceType,
    /// The effective settings.
    settings: String,
}

/// Asks every plugin that serves a type of the devices and can inspect firmware.
///
/// # Errors
/// A plugin refuses the firmware, reads another version in it than the devices are to report, or
/// cannot be asked.
pub(super) async fn inspect(
    operator: &Arc<Operator>,
    subject: &Subject,
    question: &ResolveFirmware,
    source: &mut Source<'_>,
    firmware: &Firmware,
    beginnings: &mut Beginnings,
) -> Result<(), FirmwareFailure> {
    beginnings.keep_those_of(firmware);
    for kind in &question.device_types {
        let Ok(kind) = kind.parse() else { continue };
        let Some(digest) = manifest(firmware, &kind) else { continue };
        let Some(inspector) = inspector(operator, subject, kind).await? else { continue };
        for part in [Part::Start, Part::Whole] {
            let file = beginnings.read(source, digest, part).await?;
            let Some(file) = file else { break };
            let is_certain = file.is_certain;
            match inspector.judge(operator, question, file).await {
                Ok(()) => break,
                // A plugin's refusal counts only once the firmware was hashed.
                Err(fault) if !is_certain && fault.reason == reason::FIRMWARE_MISMATCH.name => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    Ok(())
}

/// Returns the manifest with the firmware for a device type; the only one if the firmware names no
/// types.
fn manifest<'a>(firmware: &'a Firmware, kind: &DeviceType) -> Option<&'a Digest> {
    if firmware.platforms.is_empty() {
        return Some(&firmware.digest);
    }
    let mut platforms = firmware.platforms.iter();
    platforms.find(|(platform, _)| platform.is_for(kind.as_ref())).map(|(_, digest)| digest)
}

/// Returns the plugin that serves a device type. None if it does not inspect firmware, or if no
/// plugin serves the type, which the FlashJob of each device reports.
async fn inspector(
    operator: &Operator,
    subject: &Subject,
    kind: DeviceType,
) -> Result<Option<Inspector>, FirmwareFailure> {
    let mut changes = operator.plugins.changes();
    let until = tokio::time::Instant::now() + LOADING;
    loop {
        // Before the views are read: a change after that ends the wait below.
        changes.borrow_and_update();
        let views = operator.plugins.views();
        let Some(view) = serving(&views, &kind) else { return Ok(None) };
        let fault = match &view.ready {
            Ok(ready) => match operator.plugins.get(&view.name, &ready.digest) {
                Some(plugin) if !plugin.inspects() => return Ok(None),
                Some(plugin) => {
                    let written = written_settings(operator, subject).await;
                    let settings =
                        settings(&view.name, &view.settings, &written, &view.locked_settings);
                    return Ok(Some(Inspector { plugin, kind, settings }));
                }
                None => "it is being replaced by another version",
            },
            Err(fault) => fault,
        };
        let message = format!("plugin {}, which serves {kind}, is not ready: {fault}", view.name);
        // A plugin that failed to load does not change by itself soon.
        let may_change = view.is_loading || view.ready.is_ok();
        if !may_change || tokio::time::timeout_at(until, changes.changed()).await.is_err() {
            return Err(not_ready(message));
        }
    }
}

/// Returns the settings of a FlashJob, or of a FlashRollout's template, by plugin.
async fn written_settings(
    operator: &Operator,
    subject: &Subject,
) -> BTreeMap<String, Map<String, Value>> {
    let subject = subject.clone();
    let settings = operator.ask(move |world| match &subject {
        Subject::Job(key) => {
            let spec = world.jobs.get(key).and_then(|job| job.spec.as_ref().ok());
            spec.map(|spec| spec.settings.clone())
        }
        Subject::Rollout(key) => {
            let spec = world
                .rollouts
                .get(key)
                .and_then(|cached_rollout| cached_rollout.rollout.spec.as_ref().ok());
            spec.and_then(|spec| spec.template.settings.clone())
        }
    });
    settings.await.flatten().unwrap_or_default()
}

impl Inspector {
    /// Asks the plugin about a file, and compares the version.
    async fn judge(
        &self,
        operator: &Arc<Operator>,
        question: &ResolveFirmware,
        file: Beginning,
    ) -> Result<(), FirmwareFailure> {
        let Beginning { name, size, bytes, .. } = file;
        let (plugin, kind) = (&self.plugin.info().name, &self.kind);
        let file = FirmwareFile {
            device_type: kind.to_string(),
            firmware: question.reference.clone(),
            version: question.version.clone(),
            settings: self.settings.clone(),
            name,
            size,
            beginning: bytes,
        };
        let inspection = match self.ask(operator, &file).await {
            Ok(Some(inspection)) => inspection,
            Ok(None) => return Ok(()),
            Err(error @ CallError::Unavailable { .. }) => {
                return Err(not_ready(format!("plugin {plugin}: {error}")));
            }
            Err(error) => {
                let message =
                    format!("plugin {plugin} cannot inspect it for device type {kind}: {error}");
                let reason = reason::INSPECTION_FAILED.name;
                return Err(FirmwareFailure { reason, message, permanent: true });
            }
        };
        tracing::debug!(plugin, %kind, ?inspection, "firmware was inspected");
        fault(&file, &inspection).map_or(Ok(()), |message| {
            let message = format!("plugin {plugin} refuses it: {message}");
            let reason = reason::FIRMWARE_MISMATCH.name;
            Err(FirmwareFailure { reason, message, permanent: true })
        })
    }

    /// Asks the plugin on the plugin threads, and counts the answer.
    async fn ask(
        &self,
        operator: &Arc<Operator>,
        file: &FirmwareFile,
    ) -> Result<Option<Inspection>, CallError> {
        let (plugin, file, asking) = (self.plugin.clone(), file.clone(), operator.clone());
        let (answered, answer) = tokio::sync::oneshot::channel();
        operator.plugins.spawn(async move {
            let since = Instant::now();
            let answer = plugin.inspect(&file).await;
            let name = &plugin.info().name;
            asking.metrics.plugin_asked(name, "inspect-firmware", since.elapsed(), &answer);
            // The caller may have stopped waiting.
            let _ = answered.send(answer);
        });
        // The sender is dropped without an answer only if the call panicked.
        answer.await.unwrap_or_else(|error| Err(CallError::Trapped(error.to_string())))
    }
}

fn not_ready(message: String) -> FirmwareFailure {
    FirmwareFailure { reason: reason::PLUGIN_NOT_READY.name, message, permanent: false }
}

/// Reason for which no device may be flashed with a file.
fn fault(file: &FirmwareFile, inspection: &Inspection) -> Option<String> {
    let FirmwareFile { name, device_type, version, .. } = file;
    let other =
        inspection.version.as_ref().filter(|contained_version| *contained_version != version);
    inspection.refusal.clone().or_else(|| {
        let contained_version = other?;
        Some(format!(
            "{name} for device type {device_type} contains version {contained_version}, but \
             spec.version is {version}, which no device would report; correct spec.version, or \
             publish version {version}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use flashjob_artifacts::firmware::Platform;

    use super::*;

    #[test]
    fn each_type_has_its_manifest_and_firmware_without_types_one_for_all() {
        let (index, one) = (Digest::of(b"index"), Digest::of(b"one"));
        let kind: DeviceType = "esp32s3".parse().expect("a type");
        let mut firmware = Firmware { digest: index.clone(), platforms: Vec::new() };
        assert_eq!(manifest(&firmware, &kind), Some(&index));
        firmware.platforms = vec![(Platform::of_device("esp32"), index)];
        assert_eq!(manifest(&firmware, &kind), None);
        firmware.platforms.push((Platform::of_device("esp32-s3"), one.clone()));
        assert_eq!(manifest(&firmware, &kind), Some(&one));
    }

    #[test]
    fn a_refusal_comes_first_and_another_version_is_one_too() {
        let file = FirmwareFile {
            device_type: "esp32".into(),
            firmware: "registry.example/firmware:2".into(),
            version: "2".into(),
            settings: "{}".into(),
            name: "firmware/thermo.bin".into(),
            size: 1,
            beginning: vec![0],
        };
        let inspection = |version: Option<&str>, refusal: Option<&str>| Inspection {
            version: version.map(str::to_owned),
            project: None,
            chip: None,
            device_types: Vec::new(),
            secure_version: None,
            min_chip_revision: None,
            max_chip_revision: None,
            refusal: refusal.map(str::to_owned),
        };
        assert_eq!(fault(&file, &inspection(None, None)), None);
        assert_eq!(fault(&file, &inspection(Some("2"), None)), None);
        let other = fault(&file, &inspection(Some("3"), None)).expect("a fault");
        assert!(other.contains("version 3, but spec.version is 2"), "{other}");
        let refused = fault(&file, &inspection(Some("3"), Some("it is cut off")));
        assert_eq!(refused.as_deref(), Some("it is cut off"));
    }
}
