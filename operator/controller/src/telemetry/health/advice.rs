//! Advice on incomplete configurations: what is missing, and what to do about it. An operator with
//! such a configuration is ready: it does what it is configured to do, which is nothing. Pure.

use std::path::Path;

use flashjob_plugin_host::trust_entry;

use super::problem::{Cause, Problem};
use crate::cluster::installation::Installation;
use flashjob_config::{OperatorConfig, PluginConfig};

/// Returns the problem of a missing configuration file.
#[must_use]
pub fn missing(path: &Path, installation: &Installation) -> Problem {
    let command = command(installation);
    let rest = format!(
        "there is no configuration file, so no plugin is loaded and no device is flashed; write \
         one (deploy/samples/operator-config.yaml is an example), then run {command}"
    );
    Problem::new(Cause::ConfigurationMissing, path.display().to_string(), &rest)
}

/// Returns the problem of a changed configuration file that is refused.
#[must_use]
pub fn refused(error: &str, path: &Path) -> Problem {
    let rest = format!(
        "the changed configuration is refused, and the previous one stays in force: {error}"
    );
    Problem::new(Cause::ConfigurationRefused, path.display().to_string(), &rest)
}

/// Returns the problem of a configuration in force that lacks plugins, or trust for one of them.
#[must_use]
pub fn of(config: &OperatorConfig, path: &Path, installation: &Installation) -> Option<Problem> {
    let file = path.display().to_string();
    if config.plugins.is_empty() {
        let command = command(installation);
        let rest = format!(
            "the configuration names no plugin, so no device is flashed; add the plugins of your \
             devices under plugins, then run {command}"
        );
        return Some(Problem::new(Cause::PluginsMissing, file, &rest));
    }
    let untrusted: Vec<String> = config
        .plugins
        .iter()
        .filter(|plugin| is_untrusted(plugin, config))
        .map(|plugin| format!("{} ({})", plugin.name, plugin.image))
        .collect();
    let names = untrusted.join(", ");
    (!untrusted.is_empty()).then(|| {
        let rest = format!(
            "no entry under trust matches the image of {names}, so it is not run; add one \
             with match and cosign.publicKeyFiles, or with allowUnsigned: true"
        );
        Problem::new(Cause::TrustMissing, file, &rest)
    })
}

/// Returns true if no trust entry matches the image. A local file needs none: it is trusted by its
/// digest or its own allowUnsigned.
fn is_untrusted(plugin: &PluginConfig, config: &OperatorConfig) -> bool {
    plugin.image.name().is_some() && trust_entry(&plugin.image, &config.trust).is_none()
}

fn command(Installation { namespace, config_map, .. }: &Installation) -> String {
    format!(
        "kubectl -n {namespace} create configmap {config_map} \
         --from-file=config.yaml=my-config.yaml --dry-run=client -o yaml | kubectl apply -f -"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(plugins: &str, trust: &str) -> Option<Problem> {
        let text = format!(
            "apiVersion: config.flashjob.nbfc.io/v1alpha1\nkind: OperatorConfig\n\
             plugins: {plugins}\ntrust: {trust}\n"
        );
        let config = flashjob_config::parse(&text).expect("a configuration");
        let installation = Installation {
            namespace: "ops".into(),
            watched: None,
            config_map: "fleet-config".into(),
        };
        of(&config, Path::new("/etc/flashjob/config.yaml"), &installation)
    }

    #[test]
    fn a_configuration_without_plugins_or_trust_says_what_to_add() {
        let none = advice("[]", "[]").expect("advice");
        assert_eq!(none.cause, Cause::PluginsMissing);
        assert!(none.message.contains("kubectl -n ops create configmap fleet-config"));
        let plugins = "[{name: a, image: 'registry.example/x/a:1'}, \
                        {name: b, image: 'registry.example/y/b:1'}]";
        let trust = "[{match: 'registry.example/x/**', allowUnsigned: true}]";
        let untrusted = advice(plugins, trust).expect("advice");
        assert_eq!(untrusted.cause, Cause::TrustMissing);
        assert!(
            untrusted.message.contains("image of b (registry.example/y/b:1), so"),
            "{untrusted:?}"
        );
        let trust = "[{match: 'registry.example/x/**', allowUnsigned: true}, \
                      {match: 'registry.example/y/**', allowUnsigned: true}]";
        assert_eq!(advice(plugins, trust), None);
        let file = "[{name: a, image: 'file:///a.wasm', allowUnsigned: true}]";
        assert_eq!(advice(file, "[]"), None);
    }
}
