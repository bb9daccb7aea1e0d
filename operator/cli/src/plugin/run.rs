//! `plugin run`: calls a plugin as the operator does, and builds the Pod and the Service with the
//! operator's own code.

mod answers;
mod case;
mod cluster;
mod objects;
mod question;
mod shown;

use std::path::PathBuf;

use clap::Args;
use flashjob_config::PluginConfig;
use flashjob_plugin_host::{Plugin, ServedTypes};

use crate::failure::Failure;
use crate::report::Report;
use crate::source::{ComponentSource, RegistryOptions, TrustOptions};
use answers::PluginAnswers;
use case::{Case, CaseOptions};
use question::OutcomeOptions;

/// Ask a plugin.
#[derive(Debug, Args)]
pub struct Run {
    /// A file, or host/repository:tag or @sha256:…
    #[arg(value_name = "FILE|REFERENCE")]
    component: String,
    /// The request, in JSON or YAML, as -o json shows it; what it leaves out is as in an example.
    #[arg(long, value_name = "FILE", conflicts_with = "case")]
    request: Option<PathBuf>,
    #[command(flatten)]
    case: CaseOptions,
    #[command(flatten)]
    outcome: OutcomeOptions,
    /// The Service's external address, as the Pod is told it.
    #[arg(long, default_value = "192.0.2.1", help_heading = "Pod")]
    address: String,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    trust: TrustOptions,
}

pub(super) async fn run(command: &Run) -> Result<Report, Failure> {
    let source =
        ComponentSource::new(&command.component, &command.registry, &command.trust).await?;
    let verified = source.verify().await?;
    let plugin = source.start(&verified).await?;
    let name = &plugin.info().name;
    let configured = source.config.plugins.iter().find(|configured| configured.name == *name);
    let case = match &command.request {
        Some(file) => Case::of_request(question::request(file, &plugin)?, name)?,
        None => Case::of_options(&command.case, &plugin, configured).await?,
    };
    let outcome = command.outcome.outcome(&case.request)?;
    let validated = plugin.measure_validate_settings(&case.request.settings).await;
    let mut answers = PluginAnswers { validated, built: None, objects: None, judged: None };
    // The operator asks for no Pod while the settings are refused.
    if answers.validated.answer.is_ok() {
        answers.built = Some(plugin.measure_build(&case.request).await);
    }
    if let Some(Ok(flash)) = answers.built.as_ref().map(|built| &built.answer) {
        let objects =
            objects::make(&case, &plugin, flash, configured, &source.config, &command.address);
        answers.objects = Some(objects.map_err(|denied| denied.0));
        if let Some(outcome) = &outcome {
            answers.judged = Some(plugin.measure_judge(&case.request, outcome).await);
        }
    }
    let notes = notes(&case, &plugin, configured, &answers, command.registry.config.is_some());
    let text = shown::text(&case, &answers, &notes);
    let json = shown::json(&source, &verified, &plugin, &case, outcome.as_ref(), &answers, &notes);
    Ok(Report::new(text, json).failing(answers.failure()))
}

/// Returns notes on what would be different in the operator.
fn notes(
    case: &Case,
    plugin: &Plugin,
    configured: Option<&PluginConfig>,
    answers: &PluginAnswers,
    has_config: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &plugin.info().name;
    let kind = &case.request.device.device_type;
    let listed = configured.and_then(|configured| configured.device_types.clone());
    let serves = |types: &[String]| {
        let names = |text: &String| {
            let types: Option<ServedTypes> = text.parse().ok();
            types.zip(kind.parse().ok()).is_some_and(|(types, kind)| types.names(&kind).is_some())
        };
        types.iter().any(|text| text == "*" || names(text))
    };
    let types = listed
        .unwrap_or_else(|| plugin.info().device_types.iter().map(ToString::to_string).collect());
    if !serves(&types) {
        notes.push(format!(
            "plugin {name} serves {}; the operator would not ask it for a device of type {kind:?}",
            types.join(", ")
        ));
    }
    if has_config && configured.is_none() {
        notes.push(format!("the configuration has no plugin {name}, so nothing is granted to it"));
    }
    if !has_config && matches!(answers.objects, Some(Err(_))) {
        notes.push(
            "grants are taken from the operator's configuration; name it with --config".to_owned(),
        );
    }
    if case.spec.exposure == flashjob_api::Exposure::Pooled {
        notes.push(
            "exposure is Pooled: the operator reuses a Service of the pool; shown as for PerDevice"
                .to_owned(),
        );
    }
    notes
}
