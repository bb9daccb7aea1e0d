//! Loaded plugin: called under limits, and paused for a while after repeated failures.

mod health;
mod measure;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::Verified;
use crate::engine::{Answer, Call, Compiled, Engine, Interface};
use crate::types::{FirmwareFile, FlashPod, Inspection, Outcome, PluginInfo, Request, Verdict};
use crate::{Digest, Reference};
use flashjob_types::CallError;
use health::Health;
pub use measure::Measured;

/// Plugin that can be called. Cheap to clone.
#[derive(Clone)]
pub struct Plugin(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    compiled: Compiled,
    info: PluginInfo,
    digest: Digest,
    reference: Reference,
    signed: bool,
    health: Mutex<Health>,
}

impl Plugin {
    pub(crate) async fn new(
        engine: Arc<Engine>,
        compiled: Compiled,
        verified: &Verified,
        reference: &Reference,
    ) -> Result<Self, CallError> {
        let info = engine.call(&compiled, Call::Describe).await?.into_info()?;
        Ok(Self(Arc::new(Inner {
            engine,
            compiled,
            info,
            digest: verified.digest().clone(),
            reference: reference.clone(),
            signed: verified.signed(),
            health: Mutex::default(),
        })))
    }

    /// Returns the plugin's description of itself.
    #[must_use]
    pub fn info(&self) -> &PluginInfo {
        &self.0.info
    }

    /// Returns the digest of the component's manifest, or of the file for `file://`.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Returns the reference that the plugin was loaded from.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.0.reference
    }

    /// Returns true if a signature was required and found.
    #[must_use]
    pub fn signed(&self) -> bool {
        self.0.signed
    }

    /// Returns the version of the WIT package with which the plugin is called: the latest one that
    /// the plugin was built for and the host supports.
    #[must_use]
    pub fn wit_version(&self) -> &'static str {
        self.0.compiled.wit_version()
    }

    /// Returns the component's imports and exports.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        self.0.compiled.interface()
    }

    /// Validates settings, which are one JSON object.
    ///
    /// # Errors
    /// The plugin rejects the settings, or failed.
    pub async fn validate_settings(&self, settings: &str) -> Result<(), CallError> {
        self.ask(Call::ValidateSettings(settings)).await?.into_unit()
    }

    /// Returns the specification of the flash Pod for one attempt.
    ///
    /// # Errors
    /// The plugin rejects the request, or failed.
    pub async fn build(&self, request: &Request) -> Result<FlashPod, CallError> {
        self.ask(Call::Build(request)).await?.into_flash_pod()
    }

    /// Returns the plugin's verdict on an ended flash Pod.
    ///
    /// # Errors
    /// The plugin cannot judge the outcome, or failed.
    pub async fn judge(&self, request: &Request, outcome: &Outcome) -> Result<Verdict, CallError> {
        self.ask(Call::Judge(request, outcome)).await?.into_verdict()
    }

    /// Returns true if the plugin can inspect firmware: an optional export, which earlier versions
    /// of the contract do not have.
    #[must_use]
    pub fn inspects(&self) -> bool {
        self.0.compiled.inspects()
    }

    /// Inspects firmware by its first bytes; None if the plugin does not inspect firmware of this
    /// kind, or none at all.
    ///
    /// # Errors
    /// The plugin cannot judge the firmware, or failed.
    pub async fn inspect(&self, file: &FirmwareFile) -> Result<Option<Inspection>, CallError> {
        match self.inspects() {
            true => self.ask(Call::Inspect(file)).await?.into_inspection(),
            false => Ok(None),
        }
    }

    /// Calls the plugin. A refusal is final; any other failure is retried once, unless it pauses
    /// the plugin.
    async fn ask(&self, call: Call<'_>) -> Result<Answer, CallError> {
        // A failing plugin can use its full timeout at each call, which would delay the healthy
        // ones.
        if let Some(rest) = self.health().pause(Instant::now()) {
            return Err(CallError::Unavailable { left: rest });
        }
        let mut answer = self.ask_once(call).await;
        // A timeout may be due to a busy node; a retry separates that from a broken plugin.
        if answer.as_ref().is_err_and(|error| !error.is_refusal())
            && self.health().pause(Instant::now()).is_none()
        {
            answer = self.ask_once(call).await;
        }
        answer
    }

    async fn ask_once(&self, call: Call<'_>) -> Result<Answer, CallError> {
        let answer = self.0.engine.call(&self.0.compiled, call).await;
        match &answer {
            // A refusal is a correct answer about one device, and does not count against the
            // plugin.
            Err(error) if !error.is_refusal() => self.health().failed(Instant::now()),
            _ => self.health().answered(),
        }
        answer
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // The counters are valid after a panic elsewhere, so a poisoned lock is used all the same.
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
