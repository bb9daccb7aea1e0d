//! `plugin inspect`: describes a component.

use clap::Args;
use flashjob_plugin_host::{Cost, Measured, Plugin, Published, Verified};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::report::{Report, Rows};
use crate::source::{ComponentSource, RegistryOptions, TrustOptions};
use crate::text::without_control_characters;

/// Show what a component is.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A file, or host/repository:tag or @sha256:…
    #[arg(value_name = "FILE|REFERENCE")]
    component: String,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    trust: TrustOptions,
}

pub(super) async fn run(command: &Inspect) -> Result<Report, Failure> {
    let source =
        ComponentSource::new(&command.component, &command.registry, &command.trust).await?;
    let verified = source.verify().await?;
    let published = source.published(verified.digest()).await?;
    let plugin = source.start(&verified).await?;
    let described = plugin.measure_describe().await;
    let json = json(&source, &verified, &plugin, &described, published.as_ref());
    let text = text(&source, &verified, &plugin, described.cost, published.as_ref());
    described.answer.map(|_| Report::new(text, json)).map_err(Failure::from)
}

/// Returns time and memory in the form for programs.
pub(super) fn cost_json(cost: Cost) -> Value {
    json!({
        "microseconds": u64::try_from(cost.time.as_micros()).unwrap_or(u64::MAX),
        "memoryBytes": cost.memory,
    })
}

/// Returns time and memory in the form for people.
pub(super) fn cost_text(cost: Cost) -> String {
    format!("{:.1} ms, {} KiB", cost.time.as_secs_f64() * 1000.0, cost.memory >> 10)
}

fn json<T>(
    source: &ComponentSource,
    verified: &Verified,
    plugin: &Plugin,
    described: &Measured<T>,
    published: Option<&Published>,
) -> Value {
    let (info, limits) = (plugin.info(), source.config.limits);
    let schema = serde_json::from_str::<Value>(&info.settings_schema)
        .unwrap_or_else(|_| json!(info.settings_schema));
    let manifest =
        published.and_then(|published| serde_json::from_slice::<Value>(&published.manifest).ok());
    let signatures = published.map(|published| {
        published
            .signatures
            .iter()
            .map(|signature| json!({"form": signature.form()}))
            .collect::<Vec<_>>()
    });
    let has_all_signatures = published.map(|published| published.has_all_signatures);
    json!({
        "source": source.json(verified),
        "name": info.name,
        "version": info.version,
        "deviceTypes": info.device_types,
        "witVersion": plugin.wit_version(),
        "imports": plugin.interface().imports,
        "exports": plugin.interface().exports,
        "settingsSchema": schema,
        "describe": cost_json(described.cost),
        "limits": {
            "microseconds": u64::try_from(limits.call_timeout.as_micros()).unwrap_or(u64::MAX),
            "memoryBytes": limits.memory,
        },
        "manifest": manifest,
        "signatures": signatures,
        "hasAllSignatures": has_all_signatures,
    })
}

fn text(
    source: &ComponentSource,
    verified: &Verified,
    plugin: &Plugin,
    cost: Cost,
    published: Option<&Published>,
) -> String {
    let (info, limits) = (plugin.info(), source.config.limits);
    let types: Vec<String> = info.device_types.iter().map(ToString::to_string).collect();
    let mut rows = Rows::default();
    rows.row("name", &info.name)
        .row("version", &info.version)
        .row("device types", types.join(", "));
    rows.row("from", source.reference())
        .row("digest", verified.digest())
        .row("size", size(verified.content().len()));
    rows.row("trust", trust(source, verified));
    if let Some(published) = published {
        rows.row("signatures", signatures(published));
        rows.row("annotations", annotations(published));
    }
    rows.row("contract", format!("flashjob:plugin@{}", plugin.wit_version()));
    rows.row("imports", plugin.interface().imports.join("\n"))
        .row("exports", plugin.interface().exports.join("\n"));
    rows.row(
        "describe",
        format!(
            "{} (limits: {:?}, {} KiB)",
            cost_text(cost),
            limits.call_timeout,
            limits.memory >> 10
        ),
    );
    rows.row("settings", schema(&info.settings_schema));
    rows.to_string()
}

/// Returns a size in the form for people.
pub(super) fn size(bytes: usize) -> String {
    format!("{bytes} bytes ({} KiB)", bytes.div_ceil(1 << 10))
}

/// Returns the reason why the component may run, as a sentence.
pub(super) fn trust(source: &ComponentSource, verified: &Verified) -> String {
    let entry = source.trust_pattern().unwrap_or_default();
    match source.trust(verified) {
        "LocalFile" => "a local file".to_owned(),
        "Signed" => format!("signed, as trust entry {entry} requires"),
        "UnsignedAllowed" => format!("not signed; trust entry {entry} allows that"),
        _ => "not checked; add --key, or --config with the operator's configuration".to_owned(),
    }
}

fn signatures(published: &Published) -> String {
    let forms: Vec<Value> =
        published.signatures.iter().map(|signature| json!(signature.form())).collect();
    let forms: Vec<&str> = forms.iter().filter_map(Value::as_str).collect();
    let (number, forms) = (forms.len(), forms.join(", "));
    match (number, published.has_all_signatures) {
        (0, true) => "none".to_owned(),
        (0, false) => "unknown: it has more attachments than are examined".to_owned(),
        (_, true) => format!("{number} ({forms})"),
        (_, false) => format!("{number} or more ({forms}, …)"),
    }
}

fn annotations(published: &Published) -> String {
    let manifest: Value = serde_json::from_slice(&published.manifest).unwrap_or_default();
    let lines = manifest["annotations"].as_object().into_iter().flatten();
    let lines: Vec<String> = lines
        .map(|(name, value)| {
            format!("{name}={}", without_control_characters(value.as_str().unwrap_or_default()))
        })
        .collect();
    if lines.is_empty() { "none".to_owned() } else { lines.join("\n") }
}

fn schema(text: &str) -> String {
    serde_json::from_str::<Value>(text)
        .map_or_else(|_| text.to_owned(), |schema| format!("{schema:#}"))
}
