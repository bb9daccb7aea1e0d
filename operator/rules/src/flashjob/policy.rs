//! Demands of the platform engineer on flash Pods and Services, and values that a FlashJob may ask
//! for. Read with the rest of the file, and checked with it.

use std::collections::{BTreeMap, BTreeSet};

use flashjob_api::{Disruption, GROUP, Resources};
use serde::Deserialize;

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// Path of the field.
    pub field: String,
    /// Description of the fault and of what is expected.
    pub message: String,
}

/// Labels by which the operator, and Services, find its Pods.
const OWN_LABELS: [&str; 2] = ["app", "uuid"];
/// Resources that a FlashJob may always ask for.
const PLAIN_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Resources of devices that Akri found: only the operator gives a Pod its own.
const AKRI_RESOURCES: &str = "akri.sh/";
/// Taints and labels of nodes that are not for workloads.
pub(crate) const CONTROL_PLANE: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Demands and permissions of the configuration, beside those of the plugins.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Host names that a FlashJob may write in place of what Akri says; `*.example.com` are all
    /// below it.
    pub host_names: Vec<String>,
    /// Settings of every flash Pod.
    pub pods: PodDefaults,
    /// Settings of every flash Service.
    pub services: ServicePolicy,
    /// Values that a FlashJob may ask for.
    pub overrides: PodPolicy,
}

/// Settings of every flash Pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodDefaults {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Requests and limits of the flash container, each where the FlashJob gives none.
    pub resources: Resources,
    /// The flash container cannot write into its image.
    pub read_only_root_filesystem: bool,
    /// Gives the Pod variables for each Service of its namespace. Default: false, they are of no
    /// use to it.
    pub enable_service_links: bool,
    /// Effect of a drain of a node on the devices that are flashed there: whether it waits for
    /// them.
    pub disruption: Disruption,
    /// The RuntimeClass of the Pods.
    pub runtime_class_name: Option<String>,
}

/// Settings of every flash Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServicePolicy {
    /// Annotation by which the load balancer is asked for `spec.externalIP`, such as
    /// `metallb.io/loadBalancerIPs`. Default: none, the field `spec.loadBalancerIP` asks. Never
    /// both: MetalLB refuses a Service that asks twice.
    #[serde(rename = "externalIPAnnotation")]
    pub external_ip_annotation: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations, such as the name of an address pool.
    pub annotations: BTreeMap<String, String>,
    /// Class of the load balancer that is asked, where there are several.
    pub load_balancer_class: Option<String>,
    /// Sets ports of the nodes aside. Default: what Kubernetes does, which is to do so.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// `SingleStack`, `PreferDualStack` or `RequireDualStack`.
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// `IPv4`, `IPv6`, or both in the order that is wanted.
    pub ip_families: Option<Vec<IpFamily>>,
    /// `None` or `ClientIP`.
    pub session_affinity: Option<SessionAffinity>,
}

/// Endpoints to which a node sends traffic from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    Cluster,
    /// Its own, so that the device's own address is seen.
    Local,
}

/// Number of families of addresses of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum IpFamilyPolicy {
    /// One.
    SingleStack,
    /// Two where the cluster has two.
    PreferDualStack,
    /// Two.
    RequireDualStack,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum IpFamily {
    /// Version 4.
    IPv4,
    /// Version 6.
    IPv6,
}

/// Rule by which a client keeps its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum SessionAffinity {
    /// It does not.
    None,
    /// By its address.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

impl SessionAffinity {
    /// As Kubernetes spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::ClientIp => "ClientIP",
        }
    }
}

/// Values that a FlashJob's podOverrides may ask for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodPolicy {
    /// Service accounts.
    pub service_account_names: Vec<String>,
    /// Priority classes.
    pub priority_class_names: Vec<String>,
    /// Resources beside cpu, memory and ephemeral-storage, such as `nvidia.com/gpu`. Never those
    /// of Akri's devices.
    pub resources: Vec<Pattern>,
    /// Keys of labels.
    pub labels: Vec<Pattern>,
    /// Keys of annotations.
    pub annotations: Vec<Pattern>,
    /// Keys of taints that may be tolerated. Default: all but those of the control plane.
    pub tolerations: Option<Vec<Pattern>>,
    /// Keys of node labels that may be asked for. Default: all but those of the control plane.
    pub node_selector: Option<Vec<Pattern>>,
}

/// A key, or with `*` at its end all keys that begin so.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Pattern(String);

impl Pattern {
    fn matches(&self, key: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(begin) => key.starts_with(begin),
            None => self.0 == key,
        }
    }
}

fn listed(patterns: &[Pattern], key: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(key))
}

impl PodPolicy {
    /// Returns true if a FlashJob may ask for this resource.
    #[must_use]
    pub(crate) fn allows_resource(&self, name: &str) -> bool {
        PLAIN_RESOURCES.contains(&name)
            || !name.starts_with(AKRI_RESOURCES) && listed(&self.resources, name)
    }

    /// Returns true if a FlashJob may give its Pods a label of this key.
    #[must_use]
    pub(crate) fn allows_label(&self, key: &str) -> bool {
        !is_own(key) && listed(&self.labels, key)
    }

    /// Returns true if a FlashJob may give its Pods an annotation of this key.
    #[must_use]
    pub(crate) fn allows_annotation(&self, key: &str) -> bool {
        !is_own(key) && listed(&self.annotations, key)
    }

    /// Returns true if a FlashJob may tolerate taints of this key; None: of every key.
    #[must_use]
    pub(crate) fn allows_toleration(&self, key: Option<&str>) -> bool {
        match (&self.tolerations, key) {
            (Some(patterns), Some(key)) => listed(patterns, key),
            (Some(patterns), None) => listed(patterns, "") || patterns.iter().any(|p| p.0 == "*"),
            (None, Some(key)) => !CONTROL_PLANE.contains(&key),
            (None, None) => true,
        }
    }

    /// Returns true if a Pod that tolerates every taint is kept off nodes of the control plane all
    /// the same.
    #[must_use]
    pub(crate) fn shuns_control_plane(&self) -> bool {
        let allowed = |key: &&str| {
            self.tolerations.as_ref().is_some_and(|patterns| {
                patterns.iter().any(|pattern| pattern.0 != "*" && pattern.matches(key))
            })
        };
        !CONTROL_PLANE.iter().any(allowed)
    }

    /// Returns true if a FlashJob may ask for nodes by this label.
    #[must_use]
    pub(crate) fn allows_node_label(&self, key: &str) -> bool {
        match &self.node_selector {
            Some(patterns) => listed(patterns, key),
            None => !CONTROL_PLANE.contains(&key),
        }
    }
}

/// Namespaces of Instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Namespaces {
    /// The FlashJob's own.
    #[default]
    #[serde(skip)]
    Same,
    /// `Same` or `All`.
    Word(Word),
    /// The FlashJob's own and these.
    Named(Vec<String>),
}

/// A word in place of a list of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Word {
    /// The FlashJob's own.
    Same,
    /// All.
    All,
}

impl Namespaces {
    /// Returns true if a FlashJob in `job` may flash devices of `instance`.
    #[must_use]
    pub fn allow(&self, job: &str, instance: &str) -> bool {
        match self {
            Self::Same | Self::Word(Word::Same) => job == instance,
            Self::Word(Word::All) => true,
            Self::Named(names) => job == instance || names.iter().any(|name| name == instance),
        }
    }
}

/// Waiting periods, in seconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Periods {
    /// For a uid that Akri does not know. Default 120.
    pub unknown_device_seconds: i64,
    /// For an image that cannot be pulled. Default 120.
    pub image_pull_seconds: i64,
    /// For a node. Default 120.
    pub unschedulable_seconds: i64,
    /// For which the Service of a failed attempt stays without a Pod, so that a late device gets
    /// nothing. Default 60.
    pub late_callback_seconds: i64,
    /// Pause before the first retry; doubles with each. Default 10.
    pub retry_seconds: i64,
    /// Longest pause before a retry. Default 300.
    pub longest_retry_seconds: i64,
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            unknown_device_seconds: 120,
            image_pull_seconds: 120,
            unschedulable_seconds: 120,
            late_callback_seconds: 60,
            retry_seconds: 10,
            longest_retry_seconds: 300,
        }
    }
}

/// Returns true if the operator itself writes labels and annotations of this key.
fn is_own(key: &str) -> bool {
    OWN_LABELS.contains(&key) || key.split('/').next() == Some(GROUP)
}

impl Policy {
    /// Checks what the API server would refuse each time, and what would break the operator's own
    /// labels.
    ///
    /// # Errors
    /// A field breaks its rule.
    pub fn check(&self) -> Result<(), InvalidField> {
        for (field, labels) in
            [("pods.labels", &self.pods.labels), ("services.labels", &self.services.labels)]
        {
            for (key, value) in labels {
                check_key(field, key)?;
                if !is_label_value(value) {
                    return invalid(
                        format!("{field}.{key}"),
                        &format!(
                            "{value:?} is no label's value; expected at most 63 letters, digits, \
                             dashes, underscores and dots, with a letter or digit at both ends"
                        ),
                    );
                }
            }
        }
        for (field, annotations) in [
            ("pods.annotations", &self.pods.annotations),
            ("services.annotations", &self.services.annotations),
        ] {
            annotations.keys().try_for_each(|key| check_key(field, key))?;
        }
        for name in [&self.pods.resources.requests, &self.pods.resources.limits]
            .into_iter()
            .flatten()
            .flat_map(BTreeMap::keys)
        {
            if name.starts_with(AKRI_RESOURCES) {
                return invalid(
                    format!("pods.resources.{name}"),
                    "a device that Akri found is given to the Pod of that device alone; take it \
                     out",
                );
            }
        }
        for (index, pattern) in self.overrides.resources.iter().enumerate() {
            if pattern.0.starts_with(AKRI_RESOURCES) {
                return invalid(
                    format!("podPolicy.resources[{index}]"),
                    "devices that Akri found are never given to a FlashJob's choice: \
                     grants.attachDevice of a plugin gives each Pod its own",
                );
            }
        }
        if let Some(families) = &self.services.ip_families {
            let different: BTreeSet<_> = families.iter().collect();
            if families.is_empty() || different.len() != families.len() {
                return invalid(
                    "services.ipFamilies".to_owned(),
                    "expected IPv4, IPv6 or both, each once",
                );
            }
        }
        Ok(())
    }
}

fn check_key(field: &str, key: &str) -> Result<(), InvalidField> {
    if is_own(key) {
        let message = "the operator itself writes this key; choose another";
        return invalid(format!("{field}.{key}"), message);
    }
    let (prefix, name) =
        key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_dns_label);
    if name.is_empty() || !is_label_value(name) || !prefix.is_none_or(is_prefix) {
        let message = "is no key of a label or annotation; expected name or domain/name";
        return invalid(format!("{field}.{key}"), message);
    }
    Ok(())
}

fn is_label_value(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

/// Returns true for a DNS label: lower-case letters, digits and dashes, at most 63.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let inner = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    !text.is_empty() && text.len() <= 63 && inner && !text.starts_with('-') && !text.ends_with('-')
}

fn invalid<T>(field: String, message: &str) -> Result<T, InvalidField> {
    Err(InvalidField { field, message: message.to_owned() })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The part of a configuration file that is policy, checked.
    pub(in crate::flashjob) fn parse(text: &str) -> Result<Policy, String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        struct File {
            pods: PodDefaults,
            services: ServicePolicy,
            pod_policy: PodPolicy,
        }
        let File { pods, services, pod_policy } =
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let policy = Policy { host_names: Vec::new(), pods, services, overrides: pod_policy };
        policy.check().map_err(|error| error.to_string())?;
        Ok(policy)
    }

    #[test]
    fn what_no_api_server_takes_or_the_operator_needs_itself_is_refused_with_its_field() {
        for (text, field) in [
            ("pods: {labels: {team: \"no spaces\"}}", "pods.labels.team"),
            ("pods: {labels: {uuid: a}}", "pods.labels.uuid"),
            ("pods: {annotations: {application.flashjob.nbfc.io/run: a}}", "pods.annotations."),
            ("services: {labels: {\"-a\": b}}", "services.labels.-a"),
            ("services: {annotations: {\"UPPER.example/a\": b}}", "services.annotations."),
            ("services: {ipFamilies: [IPv6, IPv6]}", "services.ipFamilies"),
            ("services: {externalTrafficPolicy: Nowhere}", "Nowhere"),
            ("pods: {resources: {limits: {akri.sh/a: 1}}}", "pods.resources.akri.sh/a"),
            ("podPolicy: {resources: [\"akri.sh/*\"]}", "podPolicy.resources[0]"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn by_default_a_job_asks_for_plain_resources_and_no_node_of_the_control_plane() {
        let policy = PodPolicy::default();
        assert!(policy.allows_resource("memory") && !policy.allows_resource("nvidia.com/gpu"));
        assert!(!policy.allows_resource("akri.sh/a-1") && !policy.allows_label("team"));
        assert!(policy.allows_toleration(Some("edge")) && policy.allows_toleration(None));
        assert!(!policy.allows_toleration(Some(CONTROL_PLANE[0])) && policy.shuns_control_plane());
        assert!(policy.allows_node_label("site") && !policy.allows_node_label(CONTROL_PLANE[1]));
    }

    #[test]
    fn a_list_bounds_and_widens_and_own_keys_and_akri_s_devices_are_never_in_it() {
        let text = "podPolicy: {resources: [\"*\"], labels: [\"*\"], tolerations: [edge, \
                    \"node-role*\"], nodeSelector: [\"example.com/*\"]}\n";
        let policy = parse(text).expect("valid").overrides;
        assert!(policy.allows_resource("nvidia.com/gpu") && !policy.allows_resource("akri.sh/a"));
        assert!(policy.allows_label("team") && !policy.allows_label("app"));
        assert!(policy.allows_toleration(Some("edge")) && !policy.allows_toleration(Some("gpu")));
        assert!(!policy.allows_toleration(None));
        assert!(policy.allows_toleration(Some(CONTROL_PLANE[0])) && !policy.shuns_control_plane());
        assert!(policy.allows_node_label("example.com/site") && !policy.allows_node_label("site"));
    }
}
