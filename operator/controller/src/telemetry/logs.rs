//! The log: lines of text on a terminal, one flat JSON object per line otherwise. It contains text
//! from devices, plugins and the API server, so every control character in a line of text is
//! escaped.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::telemetry::traces::{self, Traces};

/// Starts the log and, if the environment requests them, traces. RUST_LOG sets the filter of the
/// log; default: info.
#[must_use]
pub fn start() -> Option<Traces> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = if std::io::stderr().is_terminal() {
        text(std::io::stderr, true)
    } else {
        json(std::io::stderr)
    };
    let (traces, spans, error) = match traces::start() {
        Ok(Some((traces, spans))) => (Some(traces), Some(spans), None),
        Ok(None) => (None, None, None),
        Err(error) => (None, None, Some(error)),
    };
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
    // Only now is there a log to write to.
    if let Some(error) = error {
        tracing::warn!(%error, "traces are disabled");
    }
    traces
}

fn json<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false);
    layer.with_writer(writer).boxed()
}

fn text<S, W>(writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let fields = debug_fn(|line, field, value| match field.name() {
        "message" => write!(Printable(line), "{value:?}"),
        name => write!(Printable(line), "{name}={value:?}"),
    });
    tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_ansi(colours)
        .with_writer(writer)
        .boxed()
}

/// Writes control characters as their escapes.
struct Printable<'a, W>(&'a mut W);

impl<W: Write> Write for Printable<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(control) => {
                    self.0.write_str(&part[..part.len() - control.len_utf8()])?;
                    write!(self.0, "{}", control.escape_default())?;
                }
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(
        layer: impl FnOnce(Buffer) -> Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync>,
    ) -> String {
        let written = Buffer::default();
        let subscriber = tracing_subscriber::registry().with(layer(written.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let error = "lost\n2026-01-01 ERROR all is well\u{1b}[2J\r";
            tracing::warn!(job = "fleet/roll-out", device = "a\nb", %error, "said: {error}");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn hostile_text_stays_in_its_line_of_text() {
        let log = logged(|written| text(move || written.clone(), false));
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.trim_end().chars().all(|letter| !letter.is_control()), "{log:?}");
        assert!(log.contains(r"said: lost\n2026-01-01 ERROR all is well\u{1b}[2J\r"), "{log}");
        assert!(
            log.contains(r#"job="fleet/roll-out""#) && log.contains(r#"device="a\nb""#),
            "{log}"
        );
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let log = logged(|written| json(move || written.clone()));
        assert_eq!(log.lines().count(), 1, "{log}");
        let line: serde_json::Value = serde_json::from_str(&log).unwrap();
        assert_eq!(line["job"], "fleet/roll-out");
        assert_eq!(line["device"], "a\nb");
        assert_eq!(line["level"], "WARN");
        assert!(
            line["message"].as_str().is_some_and(|message| message.starts_with("said: lost\n")),
            "{line}"
        );
    }
}
