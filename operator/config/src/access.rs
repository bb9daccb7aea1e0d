//! Access to firmware: the part of the configuration that firmware lookups use.

use std::collections::HashMap;
use std::sync::Arc;

use flashjob_artifacts::Digest;
use flashjob_artifacts::config::{RegistryConfig, TrustEntry};
use flashjob_artifacts::trust::{entry, fingerprint};
use flashjob_rules::firmware::FirmwareTrust;

use crate::OperatorConfig;

/// Part of the configuration that firmware lookups use.
#[derive(Debug, Default)]
pub struct Access {
    /// Connection settings of registries.
    pub registries: Vec<RegistryConfig>,
    /// Trust policy for firmware: the required signers.
    pub trust: Vec<TrustEntry>,
    /// Digest of each entry of `trust` including its keys, by the entry's pattern.
    fingerprints: HashMap<String, Digest>,
}

impl Access {
    /// Extracts that part of a configuration. Reads the key files that it names.
    #[must_use]
    pub fn of(config: &OperatorConfig) -> Arc<Self> {
        let trust = config.firmware_trust.clone();
        let of = |entry: &TrustEntry| (entry.pattern.clone(), fingerprint(entry));
        let fingerprints = trust.iter().map(of).collect();
        Arc::new(Self { registries: config.registries.clone(), trust, fingerprints })
    }

    /// Returns the digest of the trust entry that applies to a firmware, with the keys as they
    /// were when this configuration was loaded; None if no entry applies. Firmware that was
    /// verified under another digest may no longer be trusted.
    fn trust_in(&self, firmware: &str) -> Option<String> {
        let entry = entry(&firmware.parse().ok()?, &self.trust)?;
        self.fingerprints.get(&entry.pattern).map(Digest::to_string)
    }

    /// Returns that lookup as a function for the rules, which do not depend on references and
    /// keys.
    #[must_use]
    pub fn trust(self: &Arc<Self>) -> FirmwareTrust {
        let access = Arc::clone(self);
        FirmwareTrust::new(move |firmware| access.trust_in(firmware))
    }
}
