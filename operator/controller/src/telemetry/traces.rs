//! OpenTelemetry traces, sent as OTLP over HTTP and configured only by the standard environment
//! variables; without an endpoint there are none. Spans: the plan of a job, each step, each
//! question to a plugin, each status write.

use std::env;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

/// Service name of the operator, unless the environment sets another.
const SERVICE: &str = "flashjob-operator";

/// Exporter of spans.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

/// Reason for which there are no traces.
#[derive(Debug, thiserror::Error)]
#[error("cannot send traces as configured by the variables OTEL_EXPORTER_OTLP_*: {0}")]
pub struct TracesError(#[from] opentelemetry_otlp::ExporterBuildError);

type Spans = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets up traces if the environment requests them.
///
/// # Errors
/// The variables contradict each other, or request a feature that is not built in (gRPC,
/// compression).
pub fn start() -> Result<Option<(Traces, Spans)>, TracesError> {
    if !are_requested(|name| env::var(name).ok()) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().build()?;
    let resource = Resource::builder();
    // A name that is set in the code would override that of the environment.
    let named = env::var_os("OTEL_SERVICE_NAME").is_some()
        || env::var("OTEL_RESOURCE_ATTRIBUTES")
            .is_ok_and(|attributes| attributes.contains("service.name="));
    let resource = if named { resource } else { resource.with_service_name(SERVICE) };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource.build())
        .build();
    // Only the operator's own spans: the exporter's requests would otherwise be traced too,
    // without end.
    let own_targets = Targets::new().with_target("flashjob_operator", LevelFilter::DEBUG);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(SERVICE))
        .with_filter(own_targets);
    Ok(Some((Traces(provider), spans.boxed())))
}

impl Traces {
    /// Sends the remaining spans, for at most five seconds.
    pub async fn end(self) {
        // `shutdown` blocks until the spans are sent, and the operator has a single thread.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

fn are_requested(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    // By the OpenTelemetry specification only `true`, in any case, disables the SDK.
    let disabled =
        set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let elsewhere = set("OTEL_TRACES_EXPORTER").is_some_and(|value| value != "otlp");
    let endpoint =
        set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"));
    endpoint.is_some() && !disabled && !elsewhere
}

#[cfg(test)]
mod tests {
    use super::are_requested;

    #[test]
    fn traces_are_sent_only_where_an_endpoint_is_named_and_nothing_forbids_them() {
        let with = |set: &[(&str, &str)]| {
            are_requested(|name| {
                set.iter()
                    .find(|(variable, _)| *variable == name)
                    .map(|(_, value)| (*value).to_owned())
            })
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(!with(&[]));
        assert!(!with(&[("OTEL_SERVICE_NAME", "a")]));
        assert!(with(&[endpoint]));
        assert!(with(&[(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://collector:4318/v1/traces"
        )]));
        assert!(!with(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!with(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
    }
}
