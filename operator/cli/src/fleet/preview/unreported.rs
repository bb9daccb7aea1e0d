//! Warning of a preview: devices that report no version, although `verify.mode` requires that they
//! report the new one. That a plugin proves the result by itself is only in its verdict after a
//! flash, and new firmware may report a version where the old one did not, so this is no error.

use std::collections::HashSet;

use flashjob_api::{FlashJob, FlashRollout, VerifyMode};
use flashjob_rules::count::counted;
use flashjob_rules::flashjob::observed::Instance;

use crate::fleet::inventory::Device;

/// Number of devices that the warning names.
const SHOWN: usize = 3;

/// Returns the warning about the devices of a FlashJob.
pub fn of_job(job: &FlashJob, instances: &[Instance]) -> Option<String> {
    if job.spec.verify.as_ref()?.mode != Some(VerifyMode::Required) {
        return None;
    }
    let uids: HashSet<&String> = job.spec.uuid.iter().collect();
    let devices = instances.iter().filter(|instance| uids.contains(&instance.uid));
    let silent =
        devices.filter(|instance| instance.version().is_none() && instance.fault.is_none());
    let names: Vec<&str> = silent.map(|instance| instance.name.as_str()).collect();
    warning(&names, &job.spec.version, "spec.verify.mode")
}

/// Returns the warning about the planned devices of a FlashRollout in this namespace.
pub fn of_rollout<'a>(
    rollout: &FlashRollout,
    namespace: &'a str,
    members: impl Iterator<Item = &'a String>,
    devices: &[Device],
) -> Option<String> {
    let spec = rollout.spec.effective().ok()?;
    if spec.template.verify?.mode != Some(VerifyMode::Required) {
        return None;
    }
    // Members of another namespace are named with it.
    let members: HashSet<(&str, &str)> =
        members.map(|member| member.split_once('/').unwrap_or((namespace, member))).collect();
    let planned = devices
        .iter()
        .filter(|device| members.contains(&(device.namespace.as_str(), device.name.as_str())));
    let silent = planned.filter(|device| device.version.is_none() && device.fault.is_none());
    let names: Vec<&str> = silent.map(|device| device.name.as_str()).collect();
    warning(&names, &rollout.spec.version, "spec.template.verify.mode")
}

fn warning(names: &[&str], version: &str, field: &str) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "No version is reported to Akri (property VERSION) by {}: {}{more}. {field} is Required, \
         so a device that does not report version {version} after it was flashed fails with \
         VersionNotReported. If these devices never report a version, set {field} to None: the \
         plugin's verdict is then sufficient.",
        counted(names.len(), "device"),
        names[..SHOWN.min(names.len())].join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use flashjob_api::{FlashJobSpec, FlashRolloutSpec, RolloutSelector, VerifySpec, akri};
    use http::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api;
    use crate::fleet::inventory;

    fn instance(name: &str, version: Option<&str>) -> Value {
        let mut properties = json!({"HOST_ENDPOINT": "10.0.0.1:80"});
        if let Some(version) = version {
            properties["VERSION"] = json!(version);
        }
        json!({
            "apiVersion": "akri.sh/v0", "kind": "Instance",
            "metadata": {"namespace": "fleet", "name": name, "uid": format!("uid-{name}")},
            "spec": {"nodes": ["n"], "brokerProperties": properties},
        })
    }

    fn verify(mode: Option<VerifyMode>) -> Option<VerifySpec> {
        Some(VerifySpec { mode, ..VerifySpec::default() })
    }

    #[test]
    fn devices_of_a_job_without_a_version_are_named_where_one_is_required() {
        let instances = [instance("silent", None), instance("akri-2", Some("1"))].map(|value| {
            let value: akri::Instance = serde_json::from_value(value).expect("an Instance");
            Instance::of(&value)
        });
        let warning = |uid: &str, verify| {
            let spec = FlashJobSpec {
                uuid: vec![uid.to_owned(), "uid-akri-2".to_owned()],
                version: "2".to_owned(),
                verify,
                ..FlashJobSpec::default()
            };
            of_job(&FlashJob::new("hall-3", spec), &instances)
        };
        let required = || verify(Some(VerifyMode::Required));
        let text = warning("uid-silent", required()).expect("a warning");
        for expected in ["by 1 device: silent. spec.verify.mode is Required", "version 2 after"] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(warning("uid-other", required()), None);
        for mode in [None, Some(VerifyMode::BestEffort), Some(VerifyMode::None)] {
            assert_eq!(warning("uid-silent", verify(mode)), None);
        }
        assert_eq!(warning("uid-silent", None), None);
    }

    #[tokio::test]
    async fn planned_devices_of_a_rollout_must_report_a_version_by_default() {
        let names = ["a", "b", "c", "d", "left-out"];
        let place = fake_api::place(move |_, _, _| {
            let instances = names.map(|name| instance(name, None));
            let list = json!({
                "apiVersion": "akri.sh/v0", "kind": "InstanceList",
                "metadata": {"resourceVersion": "1"}, "items": instances,
            });
            Some((StatusCode::OK, list))
        });
        let devices = inventory::devices(&place.client, Some("fleet")).await.expect("devices");
        let mut spec = FlashRolloutSpec {
            firmware: "r.io/f:2".to_owned(),
            version: "2".to_owned(),
            selector: RolloutSelector { all: Some(true), ..RolloutSelector::default() },
            ..FlashRolloutSpec::default()
        };
        let members = ["a", "b", "c", "fleet/d"].map(str::to_owned);
        let warning = |spec: &FlashRolloutSpec| {
            let rollout = FlashRollout::new("hall", spec.clone());
            of_rollout(&rollout, "fleet", members.iter(), &devices)
        };
        let text = warning(&spec).expect("a warning");
        let expected = "by 4 devices: a, b, c and 1 more. spec.template.verify.mode is Required";
        assert!(text.contains(expected), "{text}");
        spec.template.get_or_insert_default().verify = verify(Some(VerifyMode::None));
        assert_eq!(warning(&spec), None);
    }
}
