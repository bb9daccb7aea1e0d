//! Tests of obtaining artifacts from image layouts, mirrors and a cache, up to verification.

mod cached;
mod layouts;
mod mirrors;
mod saved;

use tempfile::TempDir;

use crate::Verified;
use crate::config::{Limits, PullPolicy, RegistryConfig, TrustEntry};
use crate::host::{Host, HostSettings, LoadError, PluginSource};
use crate::{Logins, Reference};

/// Host with its own cache and without a compiler.
pub(crate) struct Bench {
    pub folder: TempDir,
    pub registries: Vec<RegistryConfig>,
    pub trust: Vec<TrustEntry>,
    pub logins: Logins,
}

impl Bench {
    pub fn new(trust: Vec<TrustEntry>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, registries: Vec::new(), trust, logins: Logins::none() }
    }

    /// Runs the steps up to verification, with the cache of earlier calls.
    pub async fn obtain(
        &self,
        reference: &str,
        pull_policy: PullPolicy,
    ) -> Result<Verified, LoadError> {
        let settings = HostSettings {
            cache: self.folder.path().join("cache"),
            compiler: "/nonexistent".into(),
            limits: Limits { component: 1000, ..Limits::default() },
            registries: self.registries.clone(),
            trust: self.trust.clone(),
        };
        let reference: Reference = reference.parse().expect("a reference");
        let source =
            PluginSource { name: "esp32".into(), reference, pull_policy, allow_unsigned: false };
        Host::new(settings).expect("a host").obtain(&source, &self.logins).await
    }
}

/// Returns a policy that trusts everything with this name.
pub(crate) fn unsigned(pattern: &str) -> Vec<TrustEntry> {
    vec![TrustEntry { pattern: pattern.to_owned(), allow_unsigned: true, cosign: None }]
}

/// Returns the reason of the refusal in one word.
fn reason(refused: Result<Verified, LoadError>) -> &'static str {
    refused.map(|_| ()).expect_err("refused").reason()
}
