//! A loaded plugin: asked under limits, and left alone for a while when it breaks again and again.

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

/// A plugin that can be asked. Cheap to clone.
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

    /// Digest of the component's manifest; of the file for `file://`.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Returns the reference that it came from.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.0.reference
    }

    /// Returns true if a signature was demanded and found.
    #[must_use]
    pub fn signed(&self) -> bool {
        self.0.signed
    }

    /// Version of the WIT package by which it is asked: the latest that it is built against and
    /// that is served.
    #[must_use]
    pub fn wit_version(&self) -> &'static str {
        self.0.compiled.wit_version()
    }

    /// Returns its imports and exports.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        self.0.compiled.interface()
    }

    /// Judges settings: one JSON object.
    ///
    /// # Errors
    /// The plugin refuses them, or failed.
    pub async fn validate_settings(&self, settings: &str) -> Result<(), CallError> {
        self.ask(Call::ValidateSettings(settings)).await?.into_unit()
    }

    /// Says what the flash Pod for one attempt needs.
    ///
    /// # Errors
    /// The plugin refuses the request, or failed.
    pub async fn build(&self, request: &Request) -> Result<FlashPod, CallError> {
        self.ask(Call::Build(request)).await?.into_flash_pod()
    }

    /// Says what an ended flash Pod means.
    ///
    /// # Errors
    /// The plugin cannot judge it, or failed.
    pub async fn judge(&self, request: &Request, outcome: &Outcome) -> Result<Verdict, CallError> {
        self.ask(Call::Judge(request, outcome)).await?.into_verdict()
    }

    /// Returns true if it can inspect firmware: an export that a plugin may leave out, and that
    /// earlier versions of the contract do not have.
    #[must_use]
    pub fn inspects(&self) -> bool {
        self.0.compiled.inspects()
    }

    /// Reads how firmware begins; None where it reads no firmware of this kind, or none at all.
    ///
    /// # Errors
    /// The plugin cannot judge it, or failed.
    pub async fn inspect(&self, file: &FirmwareFile) -> Result<Option<Inspection>, CallError> {
        match self.inspects() {
            true => self.ask(Call::Inspect(file)).await?.into_inspection(),
            false => Ok(None),
        }
    }

    /// A refusal is final; anything else is tried once more, unless that takes the plugin out of
    /// service.
    async fn ask(&self, call: Call<'_>) -> Result<Answer, CallError> {
        if let Some(left) = self.health().pause(Instant::now()) {
            return Err(CallError::Unavailable { left });
        }
        let mut answer = self.ask_once(call).await;
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
            Err(error) if !error.is_refusal() => self.health().failed(Instant::now()),
            _ => self.health().answered(),
        }
        answer
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
