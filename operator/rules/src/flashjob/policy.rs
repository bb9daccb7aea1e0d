//! Requirements of the platform engineer for flash Pods and Services, and values that a FlashJob
//! may request. Part of the configuration file, and validated with it.

use std::collections::{BTreeMap, BTreeSet};

use flashjob_api::{Disruption, GROUP, Resources};
use serde::Deserialize;

/// A field that violates its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidField {
    /// Path of the field.
    pub field: String,
    /// Description of the error and of the expected value.
    pub message: String,
}

/// Labels by which the operator and Services select flash Pods.
const OWN_LABELS: [&str; 2] = ["app", "uuid"];
/// Resources that a FlashJob may always request.
const PLAIN_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Prefix of the resources of devices that Akri discovered: only the operator attaches them to a
/// Pod.
const AKRI_RESOURCES: &str = "akri.sh/";
/// Taints and labels of control plane nodes.
pub(crate) const CONTROL_PLANE: [&str; 2] =
    ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Requirements and permissions in the configuration, apart from those of the plugins.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Host names that a FlashJob may use as an endpoint instead of the one from Akri;
    /// `*.example.com` matches all names below it.
    pub host_names: Vec<String>,
    /// Settings of every flash Pod.
    pub pods: PodDefaults,
    /// Settings of every flash Service.
    pub services: ServicePolicy,
    /// Values that a FlashJob may request.
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
    /// Requests and limits of the flash container; each applies where the FlashJob sets none.
    pub resources: Resources,
    /// Makes the root file system of the flash container read-only.
    pub read_only_root_filesystem: bool,
    /// Adds environment variables for each Service of the namespace to the Pod. Default: false, as
    /// the flash Pod does not use them.
    pub enable_service_links: bool,
    /// Effect of draining a node on the devices that are being flashed there: whether the drain
    /// waits for them.
    pub disruption: Disruption,
    /// The RuntimeClass of the Pods.
    pub runtime_class_name: Option<String>,
}

/// Settings of every flash Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServicePolicy {
    /// Annotation that requests `spec.externalIP` from the load balancer, such as
    /// `metallb.io/loadBalancerIPs`. Default: none, and the field `spec.loadBalancerIP` is used.
    /// Never both: MetalLB rejects a Service that sets both.
    #[serde(rename = "externalIPAnnotation")]
    pub external_ip_annotation: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations, such as the name of an address pool.
    pub annotations: BTreeMap<String, String>,
    /// Load balancer class, where there are several load balancers.
    pub load_balancer_class: Option<String>,
    /// Allocates node ports. Default: that of Kubernetes, which allocates them.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// `SingleStack`, `PreferDualStack` or `RequireDualStack`.
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// `IPv4`, `IPv6`, or both in order of preference.
    pub ip_families: Option<Vec<IpFamily>>,
    /// `None` or `ClientIP`.
    pub session_affinity: Option<SessionAffinity>,
}

/// Endpoints to which a node routes external traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum TrafficPolicy {
    /// Endpoints on all nodes.
    Cluster,
    /// Endpoints on the node itself, which preserves the device's source address.
    Local,
}

/// Number of IP families of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum IpFamilyPolicy {
    /// One family.
    SingleStack,
    /// Two families where the cluster has two.
    PreferDualStack,
    /// Two families.
    RequireDualStack,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum IpFamily {
    /// Version 4.
    IPv4,
    /// Version 6.
    IPv6,
}

/// Rule that keeps a client on the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum SessionAffinity {
    /// No session affinity.
    None,
    /// By the client's IP address.
    #[serde(rename = "ClientIP")]
    ClientIp,
}

impl SessionAffinity {
    /// Returns the name that Kubernetes uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::ClientIp => "ClientIP",
        }
    }
}

/// Values that a FlashJob's podOverrides may request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodPolicy {
    /// Service accounts.
    pub service_account_names: Vec<String>,
    /// Priority classes.
    pub priority_class_names: Vec<String>,
    /// Resources other than cpu, memory and ephemeral-storage, such as `nvidia.com/gpu`. Never
    /// those of Akri's devices.
    pub resources: Vec<Pattern>,
    /// Keys of labels.
    pub labels: Vec<Pattern>,
    /// Keys of annotations.
    pub annotations: Vec<Pattern>,
    /// Keys of taints that may be tolerated. Default: all except those of the control plane.
    pub tolerations: Option<Vec<Pattern>>,
    /// Keys of node labels that may be selected. Default: all except those of the control plane.
    pub node_selector: Option<Vec<Pattern>>,
}

/// A key, or, with a trailing `*`, all keys with that prefix.
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

fn any_matches(patterns: &[Pattern], key: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(key))
}

impl PodPolicy {
    /// Returns true if a FlashJob may request this resource.
    #[must_use]
    pub(crate) fn allows_resource(&self, name: &str) -> bool {
        PLAIN_RESOURCES.contains(&name)
            || !name.starts_with(AKRI_RESOURCES) && any_matches(&self.resources, name)
    }

    /// Returns true if a FlashJob may set a label with this key on its Pods.
    #[must_use]
    pub(crate) fn allows_label(&self, key: &str) -> bool {
        !is_own(key) && any_matches(&self.labels, key)
    }

    /// Returns true if a FlashJob may set an annotation with this key on its Pods.
    #[must_use]
    pub(crate) fn allows_annotation(&self, key: &str) -> bool {
        !is_own(key) && any_matches(&self.annotations, key)
    }

    /// Returns true if a FlashJob may tolerate taints with this key. None: taints with any key.
    #[must_use]
    pub(crate) fn allows_toleration(&self, key: Option<&str>) -> bool {
        match (&self.tolerations, key) {
            (Some(patterns), Some(key)) => any_matches(patterns, key),
            // A toleration without a key tolerates every taint, so a list must allow every key for
            // it.
            (Some(patterns), None) => {
                any_matches(patterns, "") || patterns.iter().any(|p| p.0 == "*")
            }
            (None, Some(key)) => !CONTROL_PLANE.contains(&key),
            (None, None) => true,
        }
    }

    /// Returns true if even a Pod that tolerates every taint is kept off control plane nodes.
    #[must_use]
    pub(crate) fn excludes_control_plane(&self) -> bool {
        let allowed = |key: &&str| {
            self.tolerations.as_ref().is_some_and(|patterns| {
                // A lone `*` allows every taint to be tolerated, but does not name the control
                // plane.
                patterns.iter().any(|pattern| pattern.0 != "*" && pattern.matches(key))
            })
        };
        !CONTROL_PLANE.iter().any(allowed)
    }

    /// Returns true if a FlashJob may select nodes by this label.
    #[must_use]
    pub(crate) fn allows_node_label(&self, key: &str) -> bool {
        match &self.node_selector {
            Some(patterns) => any_matches(patterns, key),
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

/// A keyword in place of a list of namespaces.
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
    /// Waiting period for a uid that has no Instance. Default 120.
    pub unknown_device_seconds: i64,
    /// Waiting period for an image that cannot be pulled. Default 120.
    pub image_pull_seconds: i64,
    /// Waiting period for a node. Default 120.
    pub unschedulable_seconds: i64,
    /// Period for which the Service of a failed attempt stays without a Pod, so that a late
    /// callback of the device is not answered. Default 60.
    pub late_callback_seconds: i64,
    /// Time, beyond its grace period, that a connected kubelet has to end the container of a Pod
    /// that the API server no longer has. Default 90: after an outage of the API server, a
    /// kubelet may take 60 s until it lists its Pods again.
    pub lost_pod_margin_seconds: i64,
    /// Delay before the first retry; doubles with each retry. Default 10.
    pub retry_seconds: i64,
    /// Longest delay before a retry. Default 300.
    pub longest_retry_seconds: i64,
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            unknown_device_seconds: 120,
            image_pull_seconds: 120,
            unschedulable_seconds: 120,
            late_callback_seconds: 60,
            lost_pod_margin_seconds: 90,
            retry_seconds: 10,
            longest_retry_seconds: 300,
        }
    }
}

/// Returns true if labels and annotations with this key are reserved for the operator.
fn is_own(key: &str) -> bool {
    OWN_LABELS.contains(&key) || key.split('/').next() == Some(GROUP)
}

impl Policy {
    /// Rejects values that the API server would reject every time, and keys that would break the
    /// operator's own labels.
    ///
    /// # Errors
    /// Returns the first field that violates its rule.
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
                            "{value:?} is not a valid label value; expected at most 63 letters, \
                             digits, dashes, underscores and dots, with a letter or digit at both \
                             ends"
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
                    "a device found by Akri is assigned only to the Pod that flashes it; remove \
                     this entry",
                );
            }
        }
        for (index, pattern) in self.overrides.resources.iter().enumerate() {
            if pattern.0.starts_with(AKRI_RESOURCES) {
                return invalid(
                    format!("podPolicy.resources[{index}]"),
                    "a FlashJob cannot choose devices found by Akri: grants.attachDevice of a \
                     plugin gives each Pod its own; remove this entry",
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
        let message = "this key is reserved for the operator; choose another";
        return invalid(format!("{field}.{key}"), message);
    }
    // Keys of labels and of annotations have the same syntax: a DNS subdomain of at most 253
    // characters, a slash, and a name of at most 63.
    let (prefix, name) =
        key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_dns_label);
    if name.is_empty() || !is_label_value(name) || !prefix.is_none_or(is_prefix) {
        let message = "is not a valid label or annotation key; expected name or domain/name";
        return invalid(format!("{field}.{key}"), message);
    }
    Ok(())
}

fn is_label_value(text: &str) -> bool {
    // Kubernetes allows an empty label value, so no end has to exist.
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

/// Returns true for a DNS label: lower-case letters, digits and dashes, 1 to 63 characters.
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

    /// Parses and validates the parts of a configuration file that [`Policy`] covers.
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
        assert!(
            !policy.allows_toleration(Some(CONTROL_PLANE[0])) && policy.excludes_control_plane()
        );
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
        assert!(
            policy.allows_toleration(Some(CONTROL_PLANE[0])) && !policy.excludes_control_plane()
        );
        assert!(policy.allows_node_label("example.com/site") && !policy.allows_node_label("site"));
    }
}
