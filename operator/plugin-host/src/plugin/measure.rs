//! Calls a plugin once and returns the cost of the call: for plugin authors. Unlike the operator's
//! calls, these are not retried.

use flashjob_types::CallError;

use super::Plugin;
use crate::engine::{Answer, Call, Cost};
use crate::types::{FlashPod, Outcome, PluginInfo, Request, Verdict};

/// Answer of a call, and its cost.
#[derive(Clone, Debug)]
pub struct Measured<T> {
    /// The answer.
    pub answer: Result<T, CallError>,
    /// Time and memory.
    pub cost: Cost,
}

impl Plugin {
    /// Measures the plugin's description of itself.
    pub async fn measure_describe(&self) -> Measured<PluginInfo> {
        self.measure(Call::Describe, Answer::into_info).await
    }

    /// Measures the validation of settings, which are one JSON object.
    pub async fn measure_validate_settings(&self, settings: &str) -> Measured<()> {
        self.measure(Call::ValidateSettings(settings), Answer::into_unit).await
    }

    /// Measures building the flash Pod for one attempt.
    pub async fn measure_build(&self, request: &Request) -> Measured<FlashPod> {
        self.measure(Call::Build(request), Answer::into_flash_pod).await
    }

    /// Measures the verdict on an ended flash Pod.
    pub async fn measure_judge(&self, request: &Request, outcome: &Outcome) -> Measured<Verdict> {
        self.measure(Call::Judge(request, outcome), Answer::into_verdict).await
    }

    async fn measure<T>(
        &self,
        call: Call<'_>,
        take: impl FnOnce(Answer) -> Result<T, CallError>,
    ) -> Measured<T> {
        let (answer, cost) = self.0.engine.measure(&self.0.compiled, call).await;
        Measured { answer: answer.and_then(take), cost }
    }
}
