//! Signed plugins in a separate registry: one of each language, in ten copies with different names
//! and therefore different digests.

use std::path::PathBuf;

use anyhow::Context;
use flashjob_plugin_host::config::{Limits, PullPolicy};
use flashjob_plugin_host::{Credentials, Host, HostSettings, Logins, PluginSource, Reference};
use flashjob_testbed::artifacts::push_plugin;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::process::{repository, script, sibling};
use flashjob_testbed::registry::{PASSWORD, Registry, USER};
use flashjob_testbed::signatures::Signer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Number of copies of each plugin.
pub const COPIES: usize = 10;

/// Language that a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Written in Rust, and does nothing: the baseline.
    Empty,
    /// The plugin for ESP32.
    Rust,
    /// The kettle.
    Go,
    /// The lamp.
    JavaScript,
}

impl Kind {
    /// All kinds, the baseline first.
    pub const ALL: [Self; 4] = [Self::Empty, Self::Rust, Self::Go, Self::JavaScript];

    /// Returns the name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Empty => "empty (Rust)",
            Self::Rust => "esp32 (Rust)",
            Self::Go => "kettle (Go)",
            Self::JavaScript => "lamp (JavaScript)",
        }
    }

    /// Returns the plugin's own name, which is also that of its file.
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "silent",
            Self::Rust => "esp32",
            Self::Go => "kettle",
            Self::JavaScript => "lamp",
        }
    }

    /// Returns the name of a copy, as long as the plugin's own: a number replaces its last letter.
    pub fn copy_name(self, copy: usize) -> String {
        let name = self.name();
        format!("{}{copy}", &name[..name.len() - 1])
    }

    /// Returns a copy of the component with another name. Nothing else changes, and the compiled
    /// code has the same size.
    fn copy(self, component: &[u8], copy: usize) -> Vec<u8> {
        let (name, new_name) = (self.name(), self.copy_name(copy));
        // The JavaScript engine contains the word Uint8ClampedArray.
        let within_a_word = |at: usize| {
            let beside = [component.get(at.wrapping_sub(1)), component.get(at + name.len())];
            self == Self::JavaScript && beside.into_iter().flatten().any(u8::is_ascii_alphabetic)
        };
        let mut changed = component.to_vec();
        let places: Vec<usize> = component
            .windows(name.len())
            .enumerate()
            .filter_map(|(at, text)| (text == name.as_bytes()).then_some(at))
            .collect();
        for at in places.into_iter().filter(|at| !within_a_word(*at)) {
            changed[at..at + new_name.len()].copy_from_slice(new_name.as_bytes());
        }
        changed
    }
}

/// Settings of a host, in a form that can be passed to a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    cache: PathBuf,
    registries: Value,
    trust: Value,
    /// Names and references.
    pub plugins: Vec<(String, Reference)>,
}

impl Setup {
    /// Returns a fresh host.
    pub fn host(&self) -> anyhow::Result<Host> {
        let settings = HostSettings {
            cache: self.cache.clone(),
            compiler: sibling("flashjob-operator")?,
            limits: Limits::default(),
            registries: serde_json::from_value(self.registries.clone())?,
            trust: serde_json::from_value(self.trust.clone())?,
        };
        Ok(Host::new(settings)?)
    }

    /// Returns the sources of its plugins.
    pub fn sources(&self) -> impl Iterator<Item = PluginSource> {
        self.plugins.iter().map(|(name, reference)| PluginSource {
            name: name.clone(),
            reference: reference.clone(),
            pull_policy: PullPolicy::IfNotPresent,
            allow_unsigned: false,
        })
    }
}

/// The registry with all plugins, and one cache for all hosts.
pub struct Shelf {
    /// The registry.
    pub registry: Registry,
    setup: Setup,
    sizes: Vec<usize>,
    _folder: TempDir,
}

impl Shelf {
    /// Starts the registry, and publishes the copies of every plugin.
    pub async fn fill() -> anyhow::Result<Self> {
        let programs = PathBuf::from(script("tests/control-plane/build.sh")?);
        let folder = tempfile::Builder::new().prefix("flashjob-bench-").tempdir()?;
        let authority = Authority::new(folder.path())?;
        let registry = Registry::start(&programs, folder.path(), &authority).await?;
        let signer = Signer::new(folder.path(), "author")?;
        let mut setup = Setup {
            cache: folder.path().join("cache"),
            registries: json!([{"host": registry.host, "caFile": authority.certificate}]),
            trust: json!([{
                "match": format!("{}/flashjob/**", registry.host),
                "cosign": {"publicKeyFiles": [signer.public_key], "forms": ["bundle"]},
            }]),
            plugins: Vec::new(),
        };
        let mut sizes = Vec::new();
        for kind in Kind::ALL {
            let file = repository().join(format!("target/plugins/{}.wasm", kind.name()));
            let component = std::fs::read(&file)
                .with_context(|| format!("{}; build it first (make plugins)", file.display()))?;
            sizes.push(component.len());
            for copy in 0..COPIES {
                let name = kind.copy_name(copy);
                let file = folder.path().join(format!("{name}.wasm"));
                std::fs::write(&file, kind.copy(&component, copy))?;
                let repository = format!("flashjob/{name}");
                let pushed: Reference =
                    push_plugin(&registry, &file, &format!("{repository}:0.1.0"))
                        .await?
                        .parse()?;
                let digest = pushed.digest().context("what was pushed has no digest")?.to_string();
                signer.sign_bundle(&registry, &repository, &digest, &digest).await?;
                setup
                    .plugins
                    .push((name, format!("{}/{repository}:0.1.0", registry.host).parse()?));
            }
        }
        Ok(Self { registry, setup, sizes, _folder: folder })
    }

    /// Returns the settings of a host with the first copies of a plugin.
    pub fn setup(&self, kind: Kind, copies: usize) -> Setup {
        let plugins = self.setup.plugins.iter().skip(COPIES * kind as usize).take(copies);
        Setup { plugins: plugins.cloned().collect(), ..self.setup.clone() }
    }

    /// Returns the size of a component, in bytes.
    pub fn size(&self, kind: Kind) -> usize {
        self.sizes[kind as usize]
    }

    /// Returns the registry's password.
    pub fn logins(&self) -> Logins {
        let credentials = Credentials { username: USER.to_owned(), password: PASSWORD.to_owned() };
        [(self.registry.host.clone(), credentials)].into_iter().collect()
    }
}
