//! Formats the answers, for programs and for people.

use flashjob_plugin_host::types::{Outcome, PluginError, Proof, Verdict};
use flashjob_plugin_host::{CallError, Measured, Plugin, Verified};
use serde::Serialize;
use serde_json::{Value, json};

use super::answers::PluginAnswers;
use super::case::Case;
use crate::failure::Failure;
use crate::plugin::inspect::{cost_json, cost_text};
use crate::report::Rows;
use crate::source::ComponentSource;
use crate::text::without_control_characters;

/// Returns the answers in the form for programs.
pub fn json(
    source: &ComponentSource,
    verified: &Verified,
    plugin: &Plugin,
    case: &Case,
    outcome: Option<&Outcome>,
    answers: &PluginAnswers,
    notes: &[String],
) -> Value {
    let objects = answers.objects.as_ref().and_then(|objects| objects.as_ref().ok());
    let denied = answers.objects.as_ref().and_then(|objects| objects.as_ref().err());
    json!({
        "source": source.json(verified),
        "name": plugin.info().name,
        "version": plugin.info().version,
        "request": case.request,
        "outcome": outcome,
        "validateSettings": answer(&answers.validated),
        "build": answers.built.as_ref().map(answer),
        "judge": answers.judged.as_ref().map(answer),
        "denied": denied,
        "service": objects.map(|objects| &objects.service),
        "pod": objects.map(|objects| &objects.pod),
        "notes": notes,
    })
}

/// Returns `answer` or `error`, and the cost.
fn answer<T: Serialize>(measured: &Measured<T>) -> Value {
    let cost = cost_json(measured.cost);
    match &measured.answer {
        Ok(answer) => json!({"answer": answer, "cost": cost}),
        Err(CallError::Refused(refused)) => {
            json!({"error": {"reason": "Refused", "refused": refused}, "cost": cost})
        }
        Err(error) => {
            json!({
                "error": {
                    "reason": Failure::from(error.clone()).reason, "message": error.to_string(),
                },
                "cost": cost,
            })
        }
    }
}

/// Returns the answers in the form for people.
pub fn text(case: &Case, answers: &PluginAnswers, notes: &[String]) -> String {
    let device = &case.request.device;
    let mut rows = Rows::default();
    let device = format!(
        "{}/{} ({}, reports {})",
        case.request.namespace,
        device.name,
        device.device_type,
        or_none(device.reported_version.as_deref())
    );
    let firmware = format!("{} ({})", case.request.firmware, case.request.version);
    // A line end in them would begin what looks like another row.
    rows.row("device", without_control_characters(&device))
        .row("firmware", without_control_characters(&firmware));
    rows.row("settings", &case.request.settings);
    rows.row("validate-settings", answer_text(&answers.validated, |()| "accepted".to_owned()));
    if let Some(built) = &answers.built {
        rows.row("build", answer_text(built, |flash| format!("answered, image {}", flash.image)));
    }
    if let Some(judged) = &answers.judged {
        rows.row("judge", answer_text(judged, verdict));
    }
    if let Some(Err(denied)) = &answers.objects {
        rows.row("denied", denied);
    }
    for note in notes {
        rows.row("note", note);
    }
    let mut text = rows.to_string();
    if let Some(Ok(objects)) = &answers.objects {
        text.push_str(&objects.service.as_ref().map_or_else(
            || "\nNo Service: the device does not connect to the Pod.\n".to_owned(),
            document,
        ));
        text.push_str(&document(&objects.pod));
    }
    text
}

fn or_none(text: Option<&str>) -> &str {
    text.unwrap_or("nothing")
}

fn answer_text<T>(measured: &Measured<T>, words: impl FnOnce(&T) -> String) -> String {
    let words = match &measured.answer {
        Ok(answer) => words(answer),
        Err(CallError::Refused(error)) => format!("refused, {}", refusal(error)),
        Err(error) => error.to_string(),
    };
    format!("{words} ({})", cost_text(measured.cost))
}

/// Returns a refusal in words, with one invalid setting per line.
fn refusal(error: &PluginError) -> String {
    match error {
        PluginError::InvalidSettings(errors) => {
            let lines: Vec<String> = errors
                .iter()
                .map(|error| format!("\n  {:?}: {}", error.path, error.message))
                .collect();
            format!("invalid settings:{}", lines.concat())
        }
        other => other.to_string(),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Flashed(Proof::Pod) => "flashed; the Pod's success is the proof".to_owned(),
        Verdict::Flashed(Proof::ReportedVersion) => {
            "flashed; the device must report the new version".to_owned()
        }
        Verdict::Retry(why) => format!("try again: {why}"),
        Verdict::GiveUp(why) => format!("give up: {why}"),
    }
}

fn document(object: &impl Serialize) -> String {
    match serde_saphyr::to_string(&json!(object)) {
        Ok(yaml) => format!("---\n{yaml}"),
        Err(error) => format!("---\n# it cannot be written as YAML: {error}\n"),
    }
}
