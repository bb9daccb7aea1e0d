//! The part of the configuration that firmware is looked up with.

use std::collections::HashMap;
use std::sync::Arc;

use flashjob_artifacts::Digest;
use flashjob_artifacts::config::{RegistryConfig, TrustEntry};
use flashjob_artifacts::trust::{entry, fingerprint};
use flashjob_rules::firmware::FirmwareTrust;

use crate::OperatorConfig;

/// Part of the configuration that firmware is looked up with.
#[derive(Debug, Default)]
pub struct Access {
    /// Connection settings of registries.
    pub registries: Vec<RegistryConfig>,
    /// Signers of firmware.
    pub trust: Vec<TrustEntry>,
    /// Digest of each entry of `trust`, with its keys, by its pattern.
    fingerprints: HashMap<String, Digest>,
}

impl Access {
    /// The part of a configuration. Reads the keys that it names.
    #[must_use]
    pub fn of(config: &OperatorConfig) -> Arc<Self> {
        let trust = config.firmware_trust.clone();
        let of = |entry: &TrustEntry| (entry.pattern.clone(), fingerprint(entry));
        let fingerprints = trust.iter().map(of).collect();
        Arc::new(Self { registries: config.registries.clone(), trust, fingerprints })
    }

    /// Digest of the entry that decides on a firmware, with the keys that it had when this
    /// configuration was taken; None: no entry does. What was verified by an earlier one may not
    /// be trusted any more.
    fn trust_in(&self, firmware: &str) -> Option<String> {
        let entry = entry(&firmware.parse().ok()?, &self.trust)?;
        self.fingerprints.get(&entry.pattern).map(Digest::to_string)
    }

    /// The same for the rules, which know nothing of references and keys.
    #[must_use]
    pub fn trust(self: &Arc<Self>) -> FirmwareTrust {
        let access = Arc::clone(self);
        FirmwareTrust::new(move |firmware| access.trust_in(firmware))
    }
}
