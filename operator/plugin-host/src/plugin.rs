//! A loaded plugin: asked under limits, and left alone for a while when it breaks again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Call, CallError, Compiled, Engine};
use crate::host::PluginSource;
use crate::trust::Verified;
use crate::types::{FlashPod, Outcome, PluginInfo, Request, Verdict};
use crate::{Digest, Reference};

/// Failures in a row that take a plugin out of service.
const FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

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

#[derive(Default)]
struct Health {
    failures: u32,
    paused_until: Option<Instant>,
}

impl Plugin {
    pub(crate) async fn new(
        engine: Arc<Engine>,
        compiled: Compiled,
        verified: &Verified,
        source: &PluginSource,
    ) -> Result<Self, CallError> {
        let info = engine.call(&compiled, Call::Describe).await?.into_info()?;
        Ok(Self(Arc::new(Inner {
            engine,
            compiled,
            info,
            digest: verified.digest().clone(),
            reference: source.reference.clone(),
            signed: verified.signed(),
            health: Mutex::default(),
        })))
    }

    /// What the plugin says of itself.
    #[must_use]
    pub fn info(&self) -> &PluginInfo {
        &self.0.info
    }

    /// Digest of the component's manifest; of the file for `file://`.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Where it came from.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.0.reference
    }

    /// Whether a signature was demanded and found.
    #[must_use]
    pub fn signed(&self) -> bool {
        self.0.signed
    }

    /// Version of the WIT package that it is built against.
    #[must_use]
    pub fn wit_version(&self) -> &'static str {
        self.0.compiled.wit_version()
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

    /// A refusal is final; anything else is tried once more.
    async fn ask(&self, call: Call<'_>) -> Result<crate::engine::Answer, CallError> {
        self.check_pause()?;
        let mut answer = self.0.engine.call(&self.0.compiled, call).await;
        if answer.as_ref().is_err_and(|error| !error.is_refusal()) {
            self.failed();
            answer = self.0.engine.call(&self.0.compiled, call).await;
        }
        match &answer {
            Err(error) if !error.is_refusal() => self.failed(),
            _ => *self.health() = Health::default(),
        }
        answer
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.0.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_pause(&self) -> Result<(), CallError> {
        let paused = self.health().paused_until.and_then(|until| until.checked_duration_since(Instant::now()));
        match paused {
            Some(left) => Err(CallError::Unavailable { left }),
            None => Ok(()),
        }
    }

    fn failed(&self) {
        let mut health = self.health();
        health.failures += 1;
        if health.failures >= FAILURES {
            let doubled = FIRST_PAUSE.saturating_mul(1 << (health.failures - FAILURES).min(10));
            health.paused_until = Some(Instant::now() + doubled.min(LONGEST_PAUSE));
        }
    }
}
