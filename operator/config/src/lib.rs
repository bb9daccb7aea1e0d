//! Configuration file of the operator. It is read and validated as a whole: an invalid file is
//! rejected, and the error names the field. The operator and the command line use the same parser.
//! Reads files, does not use the network.

mod access;
pub mod standing;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flashjob_artifacts::config::{InvalidField, check_trust};
use flashjob_plugin_host::config::{Limits, PullPolicy, RegistryConfig, TrustEntry};
use flashjob_plugin_host::{Reference, ServedTypes};
use flashjob_rules::firmware::FirmwareTrust;
use flashjob_rules::flashjob::grants::{Grants, check_pattern, is_image};
use flashjob_rules::flashjob::policy::{
    self, Namespaces, Periods, PodDefaults, PodPolicy, Policy, ServicePolicy, is_dns_label,
};
use flashjob_rules::world::Rules;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use access::Access;

/// `apiVersion` of the file.
const API_VERSION: &str = "config.flashjob.nbfc.io/v1alpha1";

/// Content of the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorConfig {
    /// `config.flashjob.nbfc.io/v1alpha1`.
    pub api_version: String,
    /// `OperatorConfig`.
    pub kind: String,
    /// The device plugins.
    #[serde(default)]
    pub plugins: Vec<PluginConfig>,
    /// Connection settings of registries.
    #[serde(default)]
    pub registries: Vec<RegistryConfig>,
    /// Trust policy for plugins: the sources whose components are run.
    #[serde(default)]
    pub trust: Vec<TrustEntry>,
    /// Trust policy for firmware: a FlashRollout flashes firmware that matches an entry only with
    /// the required signatures. Default: no signature is required.
    #[serde(default)]
    pub firmware_trust: Vec<TrustEntry>,
    /// Limits on the cost of a call to a plugin.
    #[serde(default)]
    pub limits: Limits,
    /// Instances that a FlashJob may flash.
    #[serde(default)]
    pub instances: InstanceScope,
    /// Settings of every flash Pod.
    #[serde(default)]
    pub pods: PodDefaults,
    /// Values that a FlashJob's podOverrides may ask for.
    #[serde(default)]
    pub pod_policy: PodPolicy,
    /// Settings of every flash Service.
    #[serde(default)]
    pub services: ServicePolicy,
    /// Timeouts and pauses.
    #[serde(default)]
    pub periods: Periods,
}

/// One device plugin.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginConfig {
    /// Name, a DNS label; the plugin must describe itself by the same name.
    pub name: String,
    /// Reference that the plugin is loaded from.
    pub image: Reference,
    /// The types it serves; default: those that it describes. `*`: any type that no other plugin
    /// serves.
    #[serde(default)]
    pub device_types: Option<Vec<String>>,
    /// Policy for resolving the reference again.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// With pullPolicy Always: seconds between checks for a new version. Default 300, at least 10.
    #[serde(default = "pull_interval")]
    pub pull_interval_seconds: u32,
    /// Allow a version that is lower than the one in service.
    #[serde(default)]
    pub allow_downgrade: bool,
    /// Image of the flash Pod if a FlashJob names none. Default: the image that the plugin names.
    #[serde(default)]
    pub flash_image: Option<String>,
    /// Default settings, which a FlashJob's settings override.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// Settings that override those of a FlashJob.
    #[serde(default)]
    pub locked_settings: Map<String, Value>,
    /// For `file://` references: run the plugin without a digest and without a signature.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// Privileges that the plugin may give its Pods.
    #[serde(default)]
    pub grants: Grants,
}

/// Instances that a FlashJob may flash.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceScope {
    /// Default: those in the FlashJob's own namespace.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Host names that `spec.hostEndpoint` may have; `*.example.com` stands for all names below
    /// it. Default: only the device's own host.
    #[serde(default)]
    pub host_names: Vec<String>,
}

/// Reason why a configuration file is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration {path}: {source}; set --config to a readable file",
        path = .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Error that the system reports.
        source: std::io::Error,
    },
    /// The file is malformed.
    #[error("the configuration is invalid: {0}")]
    Parse(String),
    /// A field is invalid.
    #[error("the configuration is invalid: {field}: {message}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// Description of the fault and of what is expected.
        message: String,
    },
}

/// Reads the text of a configuration file.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Reads the text of a configuration file; None if the file does not exist.
///
/// # Errors
/// The file exists, and cannot be read.
pub fn read_if_present(path: &Path) -> Result<Option<String>, ConfigError> {
    match read(path) {
        Err(ConfigError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Parses and checks the text of a configuration file.
///
/// # Errors
/// The text has an unknown or malformed field, or a field is invalid.
pub fn parse(text: &str) -> Result<OperatorConfig, ConfigError> {
    let config: OperatorConfig =
        serde_saphyr::from_str(text).map_err(|error| ConfigError::Parse(error.to_string()))?;
    config.check()?;
    Ok(config)
}

impl OperatorConfig {
    /// Returns the policy by which Pods and Services are built.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            pods: self.pods.clone(),
            services: self.services.clone(),
            overrides: self.pod_policy.clone(),
            host_names: self.instances.host_names.clone(),
        }
    }

    /// Returns the part of the configuration that the rules use.
    #[must_use]
    pub fn rules(&self, firmware_trust: FirmwareTrust) -> Rules {
        Rules {
            namespaces: self.instances.namespaces.clone(),
            periods: self.periods,
            policy: Arc::new(self.policy()),
            firmware_trust,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.api_version != API_VERSION {
            return invalid("apiVersion".to_owned(), &format!("expected {API_VERSION}"));
        }
        if self.kind != "OperatorConfig" {
            return invalid("kind".to_owned(), "expected OperatorConfig");
        }
        for (index, plugin) in self.plugins.iter().enumerate() {
            if !is_dns_label(&plugin.name) {
                return invalid(
                    format!("plugins[{index}].name"),
                    "expected a DNS label: lower-case letters, digits and dashes, at most 63",
                );
            }
            if self.plugins[..index].iter().any(|earlier| earlier.name == plugin.name) {
                return invalid(
                    format!("plugins[{index}].name"),
                    &format!("duplicate plugin name {}; each plugin has one entry", plugin.name),
                );
            }
            for (at, text) in plugin.device_types.iter().flatten().enumerate() {
                if text != "*" && text.parse::<ServedTypes>().is_err() {
                    return invalid(
                        format!("plugins[{index}].deviceTypes[{at}]"),
                        "expected a device type such as esp32s2, a prefix such as esp32s2*, or \
                         \"*\"",
                    );
                }
            }
            if plugin.pull_interval_seconds < 10 {
                return invalid(
                    format!("plugins[{index}].pullIntervalSeconds"),
                    "expected at least 10: the registry is queried at this interval",
                );
            }
            if plugin.allow_unsigned && !matches!(plugin.image, Reference::File { .. }) {
                return invalid(
                    format!("plugins[{index}].allowUnsigned"),
                    "this is only for file:// references; for a registry or an image layout, set \
                     it under trust",
                );
            }
            if plugin.flash_image.as_deref().is_some_and(|image| !is_image(image)) {
                return invalid(
                    format!("plugins[{index}].flashImage"),
                    "expected the reference of an image: host/path:tag or host/path@sha256:…",
                );
            }
            check_grants(&plugin.grants, index)?;
        }
        self.policy().check().map_err(|error| {
            let policy::InvalidField { field, message } = error;
            ConfigError::Invalid { field, message }
        })?;
        let host =
            flashjob_plugin_host::config::check(&self.registries, &self.trust, &self.limits);
        let firmware = || check_trust("firmwareTrust", &self.firmware_trust);
        host.and_then(|()| firmware()).map_err(|error| {
            let InvalidField { field, message } = error;
            ConfigError::Invalid { field, message }
        })
    }
}

fn invalid<T>(field: String, message: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { field, message: message.to_owned() })
}

fn pull_interval() -> u32 {
    300
}

fn check_grants(grants: &Grants, index: usize) -> Result<(), ConfigError> {
    for (at, pattern) in grants.images.iter().enumerate() {
        let field = || format!("plugins[{index}].grants.images[{at}]");
        let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
        // A wildcard in the host would give the grants to images of anybody who has such a host
        // name.
        if host.is_empty() || host.contains('*') || path.is_empty() {
            let message = "expected host/path with a literal host, such as \
                           harbor.nbfc.io/nubificus/**";
            return invalid(field(), message);
        }
        if path.contains([':', '@']) {
            let repository = path.split([':', '@']).next().unwrap_or_default();
            let message = format!(
                "tags and digests are not matched, so this matches no image; give only the \
                 repository: {host}/{repository}"
            );
            return invalid(field(), &message);
        }
        if let Err(meant) = check_pattern(pattern) {
            let expected = meant.map_or_else(String::new, |meant| format!(", such as {meant}"));
            let message = format!(
                "no image has this form, so it matches none; expected host/path in full and in \
                 lower case, with * for a whole segment and ** for any number{expected}"
            );
            return invalid(field(), &message);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: config.flashjob.nbfc.io/v1alpha1\nkind: OperatorConfig\n";

    #[test]
    fn the_smallest_file_is_its_head() {
        let config = parse(HEAD).expect("valid");
        assert!(config.plugins.is_empty());
        assert!(config.instances.namespaces.allow("a", "a"));
        assert!(!config.instances.namespaces.allow("a", "b"));
    }

    #[test]
    fn an_unknown_field_is_refused_by_name_wherever_it_stands() {
        for (text, name) in [
            ("plugin: []\n", "plugin"),
            ("plugins: [{name: a, image: \"registry.example/a:1\", grant: {}}]\n", "grant"),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\", grants: {root: true}}]\n",
                "root",
            ),
            ("registries: [{host: registry.example, password: x}]\n", "password"),
            ("limits: {memori: 1Mi}\n", "memori"),
            ("periods: {late: 1}\n", "late"),
        ] {
            let error = parse(&format!("{HEAD}{text}")).expect_err(text).to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn instances_can_be_widened_to_all_or_named_namespaces() {
        let all = parse(&format!("{HEAD}instances: {{namespaces: All}}\n")).expect("valid");
        assert!(all.instances.namespaces.allow("a", "b"));
        let named = parse(&format!("{HEAD}instances: {{namespaces: [b]}}\n")).expect("valid");
        assert!(
            named.instances.namespaces.allow("a", "b")
                && !named.instances.namespaces.allow("a", "c")
        );
        assert!(parse(&format!("{HEAD}instances: {{namespaces: Any}}\n")).is_err());
    }

    #[test]
    fn names_types_and_image_patterns_are_checked_with_their_path() {
        for (text, field) in [
            ("plugins: [{name: A, image: \"registry.example/a:1\"}]\n", "plugins[0].name"),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\", flashImage: \"A b\"}]\n",
                "plugins[0].flashImage",
            ),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\"}, {name: a, image: \
                 \"registry.example/a:1\"}]\n",
                "plugins[1].name",
            ),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\", grants: {images: \
                 [\"**\"]}}]\n",
                "plugins[0].grants.images[0]",
            ),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\", grants: {images: \
                 [\"registry.example/b/c:1\"]}}]\n",
                "plugins[0].grants.images[0]: tags and digests are not matched, so this matches \
                 no image; give only the repository: registry.example/b/c",
            ),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\", grants: {images: \
                 [\"registry.example/B/*\"]}}]\n",
                "plugins[0].grants.images[0]",
            ),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\", grants: {images: \
                 [\"registry.example/b/flash-*\"]}}]\n",
                "for any number, such as registry.example/b/*",
            ),
            (
                "plugins: [{name: a, image: \"registry.example/a:1\", grants: {images: \
                 [\"registry.example/b\", \"team/**\"]}}]\n",
                "plugins[0].grants.images[1]: no image has this form",
            ),
            ("registries: [{host: \"\"}]\n", "registries[0].host"),
            ("registries: [{host: a.b, tokenHosts: [\"\"]}]\n", "registries[0].tokenHosts[0]"),
            ("trust: [{match: \"team/**\", allowUnsigned: true}]\n", "such as docker.io/team/**"),
            (
                "firmwareTrust: [{match: \"registry.example/a/**\", cosign: {}}]\n",
                "firmwareTrust[0].cosign.publicKeyFiles",
            ),
            ("registries: [{host: \"https://registry.example\"}]\n", "registries[0].host"),
            ("registries: [{host: \"*.registry.example\"}]\n", "registries[0].host"),
            (
                "trust: [{match: \"registry.example/a:1\", allowUnsigned: true}]\n",
                "trust[0].match",
            ),
            (
                "trust: [{match: \"registry.example/a@sha256:00\", allowUnsigned: true}]\n",
                "trust[0].match",
            ),
            (
                "trust: [{match: \"https://registry.example/a\", allowUnsigned: true}]\n",
                "trust[0].match",
            ),
        ] {
            let error = parse(&format!("{HEAD}{text}")).expect_err(text).to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn the_samples_are_valid() {
        let sample = include_str!("../../../deploy/samples/operator-config.yaml");
        assert_eq!(parse(sample).expect("valid").plugins.len(), 3);
        let serial = parse(include_str!("../../../deploy/samples/operator-config-serial.yaml"))
            .expect("valid");
        assert!(
            serial
                .plugins
                .iter()
                .all(|plugin| plugin.grants.attach_device && plugin.grants.groups == [20])
        );
    }

    #[test]
    fn the_parts_of_a_configuration_on_the_pages_about_hardware_are_valid() {
        let pages =
            [include_str!("../../../docs/hardware.md"), include_str!("../../../docs/flasher.md")];
        let blocks = pages.iter().flat_map(|page| page.split("```yaml\n").skip(1));
        let blocks = blocks.filter_map(|rest| rest.split("```").next());
        let parts: Vec<&str> = blocks.filter(|block| !block.contains("kind: FlashJob")).collect();
        assert_eq!(parts.len(), 5);
        for part in parts {
            parse(&format!("{HEAD}{part}")).unwrap_or_else(|error| panic!("{error}\n{part}"));
        }
    }
}
