//! Plugin hosts that start with an empty cache, or with the code that an earlier host compiled.

use std::path::{Path, PathBuf};

use flashjob_plugin_host::config::{Limits, PullPolicy, RegistryConfig, TrustEntry};
use flashjob_plugin_host::{Host, HostSettings, PluginSource};
use flashjob_testbed::process::{repository, script, sibling};
use serde_json::Value;

/// Returns a host with its cache in this folder.
///
/// # Errors
/// The operator's program is not built, or the configuration is invalid.
pub fn host(
    cache: &Path,
    registries: Value,
    trust: Value,
    limits: Limits,
) -> anyhow::Result<Host> {
    let registries: Vec<RegistryConfig> = serde_json::from_value(registries)?;
    let trust: Vec<TrustEntry> = serde_json::from_value(trust)?;
    flashjob_plugin_host::config::check(&registries, &trust, &limits)?;
    Ok(Host::new(HostSettings {
        cache: cache.to_owned(),
        compiler: sibling("flashjob-operator")?,
        limits,
        registries,
        trust,
    })?)
}

/// Returns the source of a plugin to load.
///
/// # Errors
/// The text is not a valid reference.
pub fn source(
    name: &str,
    reference: &str,
    pull_policy: PullPolicy,
) -> anyhow::Result<PluginSource> {
    Ok(PluginSource {
        name: name.to_owned(),
        reference: reference.parse()?,
        pull_policy,
        allow_unsigned: true,
    })
}

/// Reads a component that `make plugins` has built.
///
/// # Errors
/// The component was not built.
pub fn component(name: &str) -> anyhow::Result<Vec<u8>> {
    let file = repository().join(format!("target/plugins/{name}.wasm"));
    std::fs::read(&file).map_err(|error| {
        anyhow::anyhow!("{}: {error}; build it first (make plugins)", file.display())
    })
}

/// Returns the folder of the registry's program.
///
/// # Errors
/// The program could not be built.
pub fn programs() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(script("tests/control-plane/build.sh")?))
}

/// Links the compiled code of a cache into a new one, so that it is not compiled again.
///
/// # Errors
/// The folder cannot be written to.
pub fn share_compiled(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to.join("compiled"))?;
    for entry in std::fs::read_dir(from.join("compiled"))? {
        let entry = entry?;
        std::fs::hard_link(entry.path(), to.join("compiled").join(entry.file_name()))?;
    }
    Ok(())
}
