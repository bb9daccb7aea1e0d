//! Additions of a FlashJob's podOverrides, and of the configuration, to a flash Pod; and the
//! checks of what a FlashJob may request.

use std::collections::BTreeMap;

use flashjob_api::{PodOverrides, Resources, Toleration};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::attempt::Attempt;
use crate::flashjob::grants::Denied;
use crate::flashjob::policy::{CONTROL_PLANE, PodPolicy};

/// Denies values that a FlashJob requests and the configuration does not allow. Names the field,
/// and the setting that would allow it.
pub(super) fn check_overrides(overrides: &PodOverrides, policy: &PodPolicy) -> Result<(), Denied> {
    let listed = [
        (
            "serviceAccountName",
            "podPolicy.serviceAccountNames",
            &overrides.service_account_name,
            &policy.service_account_names,
        ),
        (
            "priorityClassName",
            "podPolicy.priorityClassNames",
            &overrides.priority_class_name,
            &policy.priority_class_names,
        ),
    ];
    for (field, setting, value, allowed) in listed {
        let Some(value) = non_empty(value.as_ref()) else { continue };
        if !allowed.contains(&value) {
            return Err(Denied(format!(
                "spec.podOverrides.{field} {value:?} is not in {setting} of the operator's \
                 configuration"
            )));
        }
    }
    let keys = |map: &Option<BTreeMap<String, String>>| -> Vec<String> {
        map.iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let maps =
        overrides.resources.iter().flat_map(|resources| [&resources.requests, &resources.limits]);
    let resources: Vec<String> = maps.flatten().flat_map(BTreeMap::keys).cloned().collect();
    type Allows = fn(&PodPolicy, &str) -> bool;
    let keyed: [(&str, &str, Vec<String>, Allows); 4] = [
        ("resources", "podPolicy.resources", resources, PodPolicy::allows_resource),
        ("labels", "podPolicy.labels", keys(&overrides.labels), PodPolicy::allows_label),
        (
            "annotations",
            "podPolicy.annotations",
            keys(&overrides.annotations),
            PodPolicy::allows_annotation,
        ),
        (
            "nodeSelector",
            "podPolicy.nodeSelector",
            keys(&overrides.node_selector),
            PodPolicy::allows_node_label,
        ),
    ];
    for (field, setting, keys, allows) in keyed {
        if let Some(key) = keys.iter().find(|key| !allows(policy, key)) {
            return Err(not_allowed(field, key, setting));
        }
    }
    for toleration in overrides.tolerations.iter().flatten() {
        // An empty key, with the operator Exists, tolerates every taint, as a missing one does.
        let key = toleration.key.as_deref().filter(|key| !key.is_empty());
        if !policy.allows_toleration(key) {
            return Err(not_allowed("tolerations", key.unwrap_or("*"), "podPolicy.tolerations"));
        }
    }
    Ok(())
}

fn not_allowed(field: &str, key: &str, setting: &str) -> Denied {
    Denied(format!(
        "spec.podOverrides.{field} {key:?} is not allowed by {setting} of the operator's \
         configuration"
    ))
}

/// Merges entries: our own take precedence, then the earlier of the others.
pub(super) fn with(
    mut entries: BTreeMap<String, String>,
    additions: [&Option<BTreeMap<String, String>>; 2],
) -> BTreeMap<String, String> {
    for (key, value) in additions.into_iter().flatten().flatten() {
        entries.entry(key.clone()).or_insert_with(|| value.clone());
    }
    entries
}

pub(super) fn tolerations(overrides: &PodOverrides) -> Option<Vec<core::Toleration>> {
    overrides.tolerations.as_ref().map(|list| list.iter().map(toleration).collect())
}

/// The device's own extended resource, the resources that the job requests, and the defaults of
/// the configuration for others.
pub(super) fn resources(
    attempt: &Attempt<'_>,
    defaults: &Resources,
) -> Option<core::ResourceRequirements> {
    let requested: Resources = attempt.spec.pod_overrides.resources.clone().unwrap_or_default();
    let merged = |values, default: &Option<BTreeMap<String, IntOrString>>| {
        let mut all = quantities(default.clone());
        all.extend(quantities(values));
        all
    };
    let mut limits = merged(requested.limits, &defaults.limits);
    let requests = merged(requested.requests, &defaults.requests);
    if attempt.flash.attach_device {
        // An extended resource cannot be overcommitted: Kubernetes sets its request to the limit.
        limits.insert(format!("akri.sh/{}", attempt.instance.name), Quantity("1".to_owned()));
    }
    let some = |map: BTreeMap<String, Quantity>| (!map.is_empty()).then_some(map);
    if limits.is_empty() && requests.is_empty() {
        return None;
    }
    Some(core::ResourceRequirements {
        claims: None,
        limits: some(limits),
        requests: some(requests),
    })
}

fn quantities(map: Option<BTreeMap<String, IntOrString>>) -> BTreeMap<String, Quantity> {
    let text = |value| match value {
        IntOrString::Int(number) => Quantity(number.to_string()),
        IntOrString::String(text) => Quantity(text),
    };
    map.unwrap_or_default().into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Binds the flash of a device on a node's bus to that node. A Pod that tolerates every taint is
/// kept off the control plane by node labels; any other Pod is kept off by taints, where the
/// control plane has them.
pub(super) fn affinity(attempt: &Attempt<'_>, policy: &PodPolicy) -> Option<core::Affinity> {
    let nodes = attempt.flash.attach_device.then_some(attempt.instance.nodes.as_slice());
    let everywhere = attempt
        .spec
        .pod_overrides
        .tolerations
        .iter()
        .flatten()
        .any(|toleration| toleration.key.as_deref().unwrap_or_default().is_empty());
    // Such a Pod also tolerates the taints of the control plane, from which only a node affinity
    // can keep it away.
    let shunned = (everywhere && policy.excludes_control_plane()).then(|| {
        let absent = |key: &str| core::NodeSelectorRequirement {
            key: key.to_owned(),
            operator: "DoesNotExist".to_owned(),
            values: None,
        };
        CONTROL_PLANE.map(absent).to_vec()
    });
    if nodes.is_none() && shunned.is_none() {
        return None;
    }
    Some(on_nodes(nodes, shunned))
}

/// Node affinity for these nodes, if given, whose labels meet these requirements.
fn on_nodes(
    nodes: Option<&[String]>,
    labels: Option<Vec<core::NodeSelectorRequirement>>,
) -> core::Affinity {
    let named = |node: &String| core::NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.clone()]),
    };
    let term = |fields: Option<Vec<core::NodeSelectorRequirement>>| core::NodeSelectorTerm {
        match_fields: fields,
        match_expressions: labels.clone(),
    };
    // A field selector takes one value, so several nodes need several terms.
    let terms = match nodes {
        Some(nodes) => nodes.iter().map(|node| term(Some(vec![named(node)]))).collect(),
        None => vec![term(None)],
    };
    let required = core::NodeSelector { node_selector_terms: terms };
    core::Affinity {
        node_affinity: Some(core::NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        ..core::Affinity::default()
    }
}

fn toleration(toleration: &Toleration) -> core::Toleration {
    core::Toleration {
        key: toleration.key.clone(),
        operator: toleration.operator.clone(),
        value: toleration.value.clone(),
        effect: toleration.effect.clone(),
        toleration_seconds: toleration.toleration_seconds,
    }
}

pub(super) fn non_empty(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}
