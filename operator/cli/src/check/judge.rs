//! Evaluates the facts: one finding for each part, in the order in which to repair them. Pure.

use std::cmp::Reverse;

use flashjob_api::schema::outdated_fields;
use flashjob_api::{DevicePlugin, FlashJob, FlashRollout};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, ResourceExt};

use super::finding::{Finding, Status};
use super::read::{Answer, Facts, LEASE, OPERATOR, Unread};

const INSTALL_DEFINITIONS: &str = "kubectl apply --server-side -f deploy/crds (make install)";
/// Reasons of the events that the operator writes on its Pods when it has nothing to load.
const NOTHING_TO_LOAD: [&str; 2] = ["ConfigurationMissing", "PluginsMissing"];

/// Returns all findings.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        definition(&FlashJob::crd(), facts),
        definition(&FlashRollout::crd(), facts),
        definition(&DevicePlugin::crd(), facts),
        devices(&facts.instances),
    ];
    findings.extend(operator(facts));
    findings.extend(facts.leases.iter().map(|(namespace, lease)| held(namespace, lease, facts)));
    findings.extend(plugins(facts));
    findings.push(load_balancer(facts));
    findings
}

fn finding(check: impl Into<String>, status: Status, message: impl Into<String>) -> Finding {
    Finding { check: check.into(), status, message: message.into(), next: None }
}

impl Finding {
    fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }
}

fn denied(check: impl Into<String>, words: &str) -> Finding {
    finding(check, Status::Denied, format!("permission denied: {words}"))
}

fn definition(own_definition: &CustomResourceDefinition, facts: &Facts) -> Finding {
    let check = format!("definition {}", own_definition.spec.names.kind);
    let missing = match &facts.schemas {
        Err(Unread::Denied(words)) => return denied(check, words),
        Err(Unread::Absent) => None,
        Ok(document) => outdated_fields(document, own_definition),
    };
    match missing {
        // The API server publishes the schema a moment after it serves the kind.
        None if facts
            .served
            .iter()
            .flatten()
            .any(|kind| *kind == own_definition.spec.names.kind) =>
        {
            finding(check, Status::Unknown, "is installed, but its schema is not published yet")
        }
        None => finding(check, Status::Failed, "is not installed").next(INSTALL_DEFINITIONS),
        Some(missing) if missing.is_empty() => finding(check, Status::Ok, "is of this version"),
        Some(missing) => {
            let message = format!(
                "is of another version: fields that are missing or have another type: {}",
                missing.join(", ")
            );
            finding(check, Status::Failed, message).next(INSTALL_DEFINITIONS)
        }
    }
}

fn devices(instances: &Answer<i64>) -> Finding {
    let check = "devices (Akri)";
    match instances {
        Err(Unread::Denied(words)) => denied(check, words),
        Err(Unread::Absent) => {
            let message = "Akri is not installed: there is no CustomResourceDefinition \
                           instances.akri.sh";
            finding(check, Status::Failed, message).next("install Akri, https://docs.akri.sh")
        }
        Ok(0) => finding(check, Status::Warning, "Akri has found no device").next(
            "kubectl get configurations.akri.sh -A; kubectl get pods -A, for Akri's agents and \
             discovery handlers",
        ),
        Ok(1) => finding(check, Status::Ok, "1 Instance"),
        Ok(count) => finding(check, Status::Ok, format!("{count} Instances")),
    }
}

fn operator(facts: &Facts) -> Vec<Finding> {
    let (deployments, pods) = match (&facts.deployments, &facts.pods) {
        (Err(Unread::Denied(words)), _) | (_, Err(Unread::Denied(words))) => {
            return vec![denied("operator", words)];
        }
        (Ok(deployments), Ok(pods)) => (deployments.as_slice(), pods.as_slice()),
        _ => return Vec::new(),
    };
    if deployments.is_empty() && pods.is_empty() {
        let install = "install it: make deploy IMG=…, or the Helm chart";
        let message = "no Deployment and no Pod";
        let (message, next) = match &facts.namespace {
            None => (format!("{message} has the label {OPERATOR}"), install.to_owned()),
            Some(namespace) => (
                format!("{message} in namespace {namespace} has the label {OPERATOR}"),
                format!("leave out -n to look in all namespaces; if there is none, {install}"),
            ),
        };
        return vec![finding("operator", Status::Failed, message).next(next)];
    }
    let deployments = deployments.iter().map(deployment);
    deployments.chain(pods.iter().map(|one| pod(one, facts))).collect()
}

fn deployment(deployment: &Deployment) -> Finding {
    let check = format!("deployment {}", full_name(deployment));
    let desired_replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.as_ref();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
    let message = format!("{ready} of {desired_replicas} Pods are ready");
    let created_replicas = status.and_then(|status| status.replicas).unwrap_or_default();
    match () {
        () if desired_replicas > 0 && ready >= desired_replicas => {
            finding(check, Status::Ok, message)
        }
        () if desired_replicas > 0 && created_replicas > 0 => {
            finding(check, Status::Failed, message)
        }
        () => {
            let next = format!(
                "kubectl -n {} describe deployment {}",
                deployment.namespace().unwrap_or_default(),
                deployment.name_any()
            );
            finding(check, Status::Failed, message).next(next)
        }
    }
}

fn full_name(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn pod(pod: &Pod, facts: &Facts) -> Finding {
    let check = format!("pod {}", full_name(pod));
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    {
        return finding(check, Status::Ok, "is ready");
    }
    // The operator says in an event why it is not ready, which the state of its container does
    // not show.
    if let Some(event) = last_event(facts, |event| is_about(event, pod)) {
        let (reason, note) = (event.reason.as_deref(), event.note.as_deref());
        let message = format!("{}: {}", reason.unwrap_or("?"), note.unwrap_or_default());
        return finding(check, Status::Failed, message);
    }
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let waiting = containers.unwrap_or_default().iter().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!(
            "{}: {}",
            waiting.reason.as_deref().unwrap_or("?"),
            waiting.message.as_deref().unwrap_or_default()
        ))
    });
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let next = format!(
        "kubectl -n {namespace} describe pod {name}; kubectl -n {namespace} logs {name} --tail=20"
    );
    let message = waiting.unwrap_or_else(|| "is not ready".to_owned());
    finding(check, Status::Failed, message).next(next)
}

fn is_about(event: &Event, pod: &Pod) -> bool {
    event.regarding.as_ref().is_some_and(|about| {
        about.kind.as_deref() == Some("Pod") && about.name == pod.metadata.name
    })
}

/// Returns the newest warning event by the operator.
fn last_event(facts: &Facts, fits: impl Fn(&Event) -> bool) -> Option<&Event> {
    let warnings = facts.events.iter().filter(|event| {
        event.reporting_controller.as_deref() == Some("flashjob-operator")
            && event.type_.as_deref() == Some("Warning")
    });
    let at = |event: &&Event| {
        // A repeated event is counted in its `series`; `eventTime` stays that of the first one.
        let last = event.series.as_ref().map(|series| series.last_observed_time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    };
    warnings.filter(|event| fits(event)).min_by_key(|event| Reverse(at(event)))
}

fn held(namespace: &str, lease: &Answer<Lease>, facts: &Facts) -> Finding {
    let check = format!("lease {namespace}/{LEASE}");
    let lease = match lease {
        Err(Unread::Denied(words)) => return denied(check, words),
        Err(Unread::Absent) => {
            return finding(
                check,
                Status::Failed,
                "does not exist: no operator has become leader yet",
            );
        }
        Ok(lease) => lease.spec.as_ref(),
    };
    let holder = lease.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    // A leader that is told to end releases the Lease by removing its name from it.
    if holder.is_empty() {
        return finding(check, Status::Failed, "no operator holds it, so no device is flashed");
    }
    let renewed = lease.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
    // 15 s is the operator's default (`--lease-duration-seconds`).
    let lasts = lease.and_then(|spec| spec.lease_duration_seconds).unwrap_or(15);
    match renewed.map(|renewed| seconds_since(renewed, facts.now)) {
        Some(age) if age > i64::from(lasts) => {
            let message = format!("has expired: {holder} last renewed it {age} s ago");
            finding(check, Status::Failed, message)
        }
        _ => finding(check, Status::Ok, format!("held by {holder}")),
    }
}

fn seconds_since(then: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(then).as_secs()
}

fn plugins(facts: &Facts) -> Vec<Finding> {
    let plugins = match &facts.plugins {
        Err(Unread::Denied(words)) => return vec![denied("plugins", words)],
        // The finding on the CustomResourceDefinition reports this.
        Err(Unread::Absent) => return Vec::new(),
        Ok(plugins) => plugins,
    };
    if plugins.is_empty() {
        let reason = |event: &Event| {
            event.reason.as_deref().is_some_and(|reason| NOTHING_TO_LOAD.contains(&reason))
        };
        let note = last_event(facts, reason).and_then(|event| event.note.as_deref());
        let message = note.unwrap_or("no plugin is loaded, so nothing is flashed");
        let next = "add plugins to the operator's configuration (docs/operating.md)";
        let finding = finding("plugins", Status::Failed, message);
        return vec![if note.is_some() { finding } else { finding.next(next) }];
    }
    plugins.iter().map(plugin).collect()
}

fn plugin(plugin: &DevicePlugin) -> Finding {
    let check = format!("plugin {}", plugin.name_any());
    let status = plugin.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let version = status.version.as_deref().unwrap_or("?");
    match ready {
        Some(ready) if ready.status == "True" && ready.reason == "Serving" => {
            let types = status.device_types.join(", ");
            finding(check, Status::Ok, format!("version {version} serves {types}"))
        }
        Some(ready) if ready.status == "True" => {
            let message = format!("version {version} continues to serve: {}", ready.message);
            finding(check, Status::Warning, message)
        }
        Some(ready) => {
            finding(check, Status::Failed, format!("{}: {}", ready.reason, ready.message))
        }
        None => finding(check, Status::Failed, "has no Ready condition yet"),
    }
}

/// Evaluates the load balancer by its effects: nothing in the API says that there is one.
fn load_balancer(facts: &Facts) -> Finding {
    let check = "load balancer";
    let services = match &facts.balanced {
        Ok(services) => services,
        Err(Unread::Denied(words)) => return denied(check, words),
        Err(Unread::Absent) => {
            return finding(check, Status::Unknown, "its presence cannot be determined");
        }
    };
    let has_address = |service: &&k8s_openapi::api::core::v1::Service| {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        // Some load balancers give an `ip`, others only a `hostname`.
        status.is_some_and(|status| status.ingress.as_ref().is_some_and(|all| !all.is_empty()))
    };
    let addressed_count = services.iter().filter(has_address).count();
    // MetalLB has an API group of its own; other load balancers show only in the Services.
    let metal_lb = facts.groups.iter().flatten().any(|group| group == "metallb.io");
    match (addressed_count, services.len()) {
        (0, 0) if metal_lb => finding(check, Status::Ok, "MetalLB is installed"),
        (0, 0) => finding(
            check,
            Status::Unknown,
            "no Service requests an address, so it is unknown whether one would get it",
        ),
        (0, waiting) => {
            let message = match waiting {
                1 => "1 Service requests an address but has none".to_owned(),
                _ => format!("{waiting} Services request an address, but none has one"),
            };
            let next = "install a load balancer such as MetalLB, and configure its addresses; \
                        plugins that flash over USB or serial do not need one";
            finding(check, Status::Warning, message).next(next)
        }
        (addressed_count, all) => finding(
            check,
            Status::Ok,
            format!("{addressed_count} of {all} Services have an address"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use serde_json::json;

    use super::*;

    fn facts() -> Facts {
        Facts {
            namespace: None,
            schemas: Err(Unread::Absent),
            served: Err(Unread::Absent),
            deployments: Ok(Vec::new()),
            pods: Ok(Vec::new()),
            events: Vec::new(),
            leases: Vec::new(),
            plugins: Ok(Vec::new()),
            instances: Ok(0),
            balanced: Ok(Vec::new()),
            groups: Ok(Vec::new()),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_lease_that_is_not_renewed_any_more_is_held_by_nobody() {
        let facts = Facts { now: Timestamp::from_second(100).unwrap(), ..facts() };
        let judged = |holder: Option<&str>, renewed: i64| {
            let spec = LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
                ..LeaseSpec::default()
            };
            let lease = Lease { spec: Some(spec), ..Lease::default() };
            held("ops", &Ok(lease), &facts).status
        };
        assert_eq!(judged(Some("a"), 90), Status::Ok);
        assert_eq!(judged(Some("a"), 80), Status::Failed);
        assert_eq!(judged(None, 100), Status::Failed);
        assert_eq!(held("ops", &Err(Unread::Absent), &facts).status, Status::Failed);
    }

    #[test]
    fn an_operator_that_is_not_in_the_namespace_may_be_in_another() {
        let message_and_next = |namespace: Option<&str>| {
            let facts = Facts { namespace: namespace.map(str::to_owned), ..facts() };
            let finding = operator(&facts).swap_remove(0);
            (finding.message, finding.next.unwrap_or_default())
        };
        let (message, next) = message_and_next(Some("wrong"));
        assert!(message.contains("namespace wrong") && next.contains("leave out -n"), "{next}");
        let (message, next) = message_and_next(None);
        assert!(!message.contains("namespace") && !next.contains("-n "), "{next}");
    }

    #[test]
    fn a_load_balancer_shows_by_the_addresses_that_services_got() {
        let service = |ingress: serde_json::Value| {
            let service = json!({"status": {"loadBalancer": {"ingress": ingress}}});
            serde_json::from_value(service).unwrap()
        };
        let judged = |balanced, groups: &[&str]| {
            let groups = Ok(groups.iter().map(|group| (*group).to_owned()).collect());
            load_balancer(&Facts { balanced: Ok(balanced), groups, ..facts() }).status
        };
        assert_eq!(judged(Vec::new(), &[]), Status::Unknown);
        assert_eq!(judged(Vec::new(), &["metallb.io"]), Status::Ok);
        assert_eq!(judged(vec![service(json!([]))], &["metallb.io"]), Status::Warning);
        let one = json!([{"ip": "192.0.2.1"}]);
        assert_eq!(judged(vec![service(json!([])), service(one)], &[]), Status::Ok);
    }

    #[test]
    fn what_the_user_may_not_see_is_said_to_be_denied_and_not_to_be_wrong() {
        let hidden = || Unread::Denied("forbidden".to_owned());
        let facts = Facts {
            schemas: Err(hidden()),
            deployments: Err(hidden()),
            plugins: Err(hidden()),
            instances: Err(hidden()),
            balanced: Err(hidden()),
            ..facts()
        };
        let all = findings(&facts);
        assert!(all.iter().all(|finding| finding.status == Status::Denied), "{all:?}");
    }
}
