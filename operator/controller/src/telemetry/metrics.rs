//! Metrics of the operator. This module owns the registry: every metric is created here, updated
//! through the functions here, and written as OpenMetrics text here. No label takes a value that
//! users can invent. docs/metrics.md lists all.

mod fleet;
mod process;
mod requests;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flashjob_api::reason::{self, Effect};
use flashjob_plugin_host::{CallError, LoadError, Stage};
use flashjob_rules::flashjob::observed::{Finish, PluginView};
use flashjob_rules::flashjob::plan::DeviceResult;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::flashjob::transitions::Transitions;
use crate::telemetry::health::problem::Cause;
pub use fleet::Fleet;
pub use requests::{Counted, Requests};

/// Media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Histogram buckets of the time per device, in seconds: flashing takes minutes, and a device may
/// be retried for hours.
const DEVICE_SECONDS: [f64; 12] =
    [5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    end: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPhase {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPlugin {
    plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginOutcome {
    plugin: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginCall {
    plugin: String,
    call: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLimit {
    plugin: String,
    limit: &'static str,
}

type Timed<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// Result of a status write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The status is stored.
    Stored,
    /// Another client wrote first; the object is planned again.
    Conflict,
    /// The request failed; it is retried.
    Error,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests to the API server; a layer for the client.
    pub requests: Requests,
    results: Family<End, Counter>,
    attempts_started: Counter,
    attempts_failed: Family<Because, Counter>,
    device_duration: Histogram,
    pending: Gauge,
    in_flight: Gauge,
    waiting_for_address: Gauge,
    verifying: Gauge,
    lost: Gauge,
    jobs: Family<InPhase, Gauge>,
    queue: Gauge,
    plan_duration: Histogram,
    status_writes: Family<Outcome, Counter>,
    plugin_ready: Family<OfPlugin, Gauge>,
    plugin_pulls: Family<PluginOutcome, Counter>,
    plugin_verifications: Family<PluginOutcome, Counter>,
    plugin_calls: Family<PluginCall, Counter>,
    plugin_call_duration: Timed<OfPlugin>,
    plugin_limits: Family<PluginLimit, Counter>,
    configuration_refused: Gauge,
    configuration_loaded: Gauge<f64, AtomicU64>,
    leader: Gauge,
    problem: Family<OfCause, Gauge>,
    ready: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Requests::default(),
            results: Family::default(),
            attempts_started: Counter::default(),
            attempts_failed: Family::default(),
            device_duration: Histogram::new(DEVICE_SECONDS),
            pending: Gauge::default(),
            in_flight: Gauge::default(),
            waiting_for_address: Gauge::default(),
            verifying: Gauge::default(),
            lost: Gauge::default(),
            jobs: Family::default(),
            queue: Gauge::default(),
            plan_duration: Histogram::new(exponential_buckets(0.000_1, 2.0, 14)),
            status_writes: Family::default(),
            plugin_ready: Family::default(),
            plugin_pulls: Family::default(),
            plugin_verifications: Family::default(),
            plugin_calls: Family::default(),
            plugin_call_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 14))
            }),
            plugin_limits: Family::default(),
            configuration_refused: Gauge::default(),
            configuration_loaded: Gauge::default(),
            leader: Gauge::default(),
            problem: Family::default(),
            ready: Gauge::default(),
        };
        metrics.register_process();
        metrics.register_work();
        metrics.register_plugins();
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    fn register_process(&mut self) {
        self.registry.register_collector(Box::new(process::Process::new()));
        let registry = self.registry.sub_registry_with_prefix("flashjob");
        registry.register(
            "build",
            "The operator's version",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "configuration_refused",
            "1 while the configuration file is refused and the previous one is in force, else 0",
            self.configuration_refused.clone(),
        );
        registry.register(
            "configuration_loaded_timestamp_seconds",
            "When a configuration was last accepted, in seconds since 1970",
            self.configuration_loaded.clone(),
        );
        registry.register(
            "leader",
            "1 on the replica that acts, 0 on a standby",
            self.leader.clone(),
        );
        registry.register(
            "operator_problem",
            "1 while the operator has a problem of this cause, else 0; the log and /readyz say \
             more",
            self.problem.clone(),
        );
        registry.register(
            "operator_ready",
            "1 while /readyz says that the operator can work, else 0",
            self.ready.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to the API server, by verb and HTTP code",
            self.requests.count.clone(),
        );
        registry.register(
            "api_request_duration_seconds",
            "Time until the API server answers; of a watch, until it is open",
            self.requests.duration.clone(),
        );
    }

    fn register_work(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("flashjob");
        registry.register(
            "device_results",
            "Devices that got their result, by end and reason",
            self.results.clone(),
        );
        registry.register("attempts_started", "Attempts started", self.attempts_started.clone());
        registry.register(
            "attempts_failed",
            "Attempts that failed and are retried, by reason",
            self.attempts_failed.clone(),
        );
        registry.register(
            "device_duration_seconds",
            "Time from a device's first attempt to its result, pauses and retries included",
            self.device_duration.clone(),
        );
        registry.register(
            "devices_pending",
            "Devices not started, or waiting for their next attempt",
            self.pending.clone(),
        );
        registry.register(
            "devices_in_flight",
            "Devices with an attempt that has started and has no outcome yet",
            self.in_flight.clone(),
        );
        registry.register(
            "devices_waiting_for_address",
            "Devices in flight whose Service has no external address yet",
            self.waiting_for_address.clone(),
        );
        registry.register(
            "devices_verifying",
            "Flashed devices that are watched for their new version",
            self.verifying.clone(),
        );
        registry.register(
            "devices_lost",
            "Devices in flight whose Pod vanished before its outcome was observed",
            self.lost.clone(),
        );
        registry.register("jobs", "FlashJobs by phase", self.jobs.clone());
        registry.register(
            "queue_depth",
            "FlashJobs and FlashRollouts that wait to be planned",
            self.queue.clone(),
        );
        registry.register(
            "plan_duration_seconds",
            "Time to observe and plan one job",
            self.plan_duration.clone(),
        );
        registry.register(
            "status_writes",
            "Writes of a FlashJob's status, by result",
            self.status_writes.clone(),
        );
    }

    fn register_plugins(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("flashjob");
        registry.register(
            "plugin_ready",
            "1 if the plugin can be called, else 0",
            self.plugin_ready.clone(),
        );
        registry.register(
            "plugin_pulls",
            "Plugins fetched from registry, file or cache, by result",
            self.plugin_pulls.clone(),
        );
        registry.register(
            "plugin_verifications",
            "Checks whether fetched plugins may be run, by result",
            self.plugin_verifications.clone(),
        );
        registry.register(
            "plugin_calls",
            "Calls of plugins, by call and result",
            self.plugin_calls.clone(),
        );
        registry.register(
            "plugin_call_duration_seconds",
            "Time until a plugin answers",
            self.plugin_call_duration.clone(),
        );
        registry.register(
            "plugin_limit_hits",
            "Calls stopped by a limit",
            self.plugin_limits.clone(),
        );
    }

    /// Initializes the counters to zero: a counter that appears with its first count hides that
    /// count from `rate()`.
    fn begin_at_zero(&self) {
        for reason in reason::ALL {
            let end = match reason.effect {
                Effect::Waits => continue,
                Effect::Skipped => "skipped",
                Effect::Failed | Effect::Attempt => "failed",
            };
            self.results.get_or_create(&End { end, reason: reason.name }).inc_by(0);
            if reason.effect == Effect::Attempt {
                self.attempts_failed.get_or_create(&Because { reason: reason.name }).inc_by(0);
            }
        }
        for reason in ["Verified", "Unverified"] {
            self.results.get_or_create(&End { end: "completed", reason }).inc_by(0);
        }
        self.set_health(&BTreeSet::new(), false);
        for result in ["stored", "conflict", "error"] {
            self.status_writes.get_or_create(&Outcome { result }).inc_by(0);
        }
    }

    /// Counts what a stored status write changed.
    pub fn count(&self, transitions: &Transitions<'_>) {
        self.attempts_started.inc_by(transitions.started.len() as u64);
        for device in &transitions.retried {
            // A stored reason may be of another version of the operator; only listed ones become
            // labels.
            if let Some(reason) = device.reason.as_deref().and_then(reason::by_name) {
                self.attempts_failed.get_or_create(&Because { reason: reason.name }).inc();
            }
        }
        for result in transitions.results {
            self.results.get_or_create(&end(result)).inc();
        }
    }

    /// Records the time from a device's first attempt to its result.
    pub fn device_took(&self, time: Duration) {
        self.device_duration.observe(time.as_secs_f64());
    }

    /// Records the time to observe and plan a job.
    pub fn planned(&self, time: Duration) {
        self.plan_duration.observe(time.as_secs_f64());
    }

    /// Counts a status write by its result.
    pub fn wrote(&self, write: Write) {
        let result = match write {
            Write::Stored => "stored",
            Write::Conflict => "conflict",
            Write::Error => "error",
        };
        self.status_writes.get_or_create(&Outcome { result }).inc();
    }

    /// Sets whether this replica leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Sets the causes of the current problems, and whether the operator is ready.
    pub fn set_health(&self, causes: &BTreeSet<Cause>, ready: bool) {
        for cause in Cause::ALL {
            let labels = OfCause { cause: cause.name() };
            self.problem.get_or_create(&labels).set(i64::from(causes.contains(&cause)));
        }
        self.ready.set(i64::from(ready));
    }

    /// Records that a new configuration is in force from now on.
    pub fn configuration_taken(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.configuration_loaded.set(since.as_secs_f64());
        self.configuration_refused.set(0);
    }

    /// Records that a changed configuration is refused.
    pub fn configuration_refused(&self) {
        self.configuration_refused.set(1);
    }

    /// Counts the load of a plugin, or its failure.
    pub fn plugin_loaded(&self, plugin: &str, error: Option<&LoadError>) {
        let outcome = |failed: bool| PluginOutcome {
            plugin: plugin.to_owned(),
            result: if failed { "failed" } else { "ok" },
        };
        let stage = error.map(LoadError::stage);
        let not_fetched = stage == Some(Stage::Resolve);
        self.plugin_pulls.get_or_create(&outcome(not_fetched)).inc();
        if !not_fetched {
            self.plugin_verifications.get_or_create(&outcome(stage == Some(Stage::Verify))).inc();
        }
    }

    /// Counts a call of a plugin by its result, and records its duration.
    pub fn plugin_asked<T>(
        &self,
        plugin: &str,
        call: &'static str,
        time: Duration,
        answer: &Result<T, CallError>,
    ) {
        let (result, limit) = match answer {
            Ok(_) => ("answered", None),
            Err(CallError::Refused(_)) => ("refused", None),
            Err(CallError::Trapped(_)) => ("crashed", None),
            Err(CallError::TimedOut { .. }) => ("timeout", Some("time")),
            Err(CallError::OutOfMemory { .. }) => ("out-of-memory", Some("memory")),
            Err(CallError::AnswerRejected(_)) => ("answer-rejected", Some("answer")),
            Err(CallError::LimitReached(_)) => ("limit-reached", Some("other")),
            Err(CallError::Unavailable { .. }) => ("unavailable", None),
        };
        let plugin = plugin.to_owned();
        if let Some(limit) = limit {
            self.plugin_limits.get_or_create(&PluginLimit { plugin: plugin.clone(), limit }).inc();
        }
        // A plugin that is out of service was not called.
        if result != "unavailable" {
            self.plugin_call_duration
                .get_or_create(&OfPlugin { plugin: plugin.clone() })
                .observe(time.as_secs_f64());
        }
        self.plugin_calls.get_or_create(&PluginCall { plugin, call, result }).inc();
    }

    /// Sets the number of objects that wait to be planned.
    pub fn set_queue_depth(&self, count: usize) {
        self.queue.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Returns all metrics as OpenMetrics text, which Prometheus reads.
    ///
    /// # Errors
    /// Never in practice: a `String` takes any text.
    pub fn text(&self, fleet: Fleet, plugins: &[PluginView]) -> Result<String, std::fmt::Error> {
        self.pending.set(fleet.pending.into());
        self.in_flight.set(fleet.in_flight.into());
        self.waiting_for_address.set(fleet.waiting_for_address.into());
        self.verifying.set(fleet.verifying.into());
        self.lost.set(fleet.lost.into());
        let phases = [
            ("New", fleet.new),
            ("InProgress", fleet.in_progress),
            ("Completed", fleet.completed),
            ("Failed", fleet.failed),
        ];
        for (phase, count) in phases {
            self.jobs.get_or_create(&InPhase { phase }).set(count.into());
        }
        // A plugin that is no longer configured would keep its last value.
        self.plugin_ready.clear();
        for plugin in plugins {
            self.plugin_ready
                .get_or_create(&OfPlugin { plugin: plugin.name.clone() })
                .set(i64::from(plugin.ready.is_ok()));
        }
        let mut written = String::new();
        text::encode(&mut written, &self.registry)?;
        Ok(written)
    }
}

fn end(result: &DeviceResult) -> End {
    let (end, otherwise) = match result.finish {
        Finish::Completed => {
            ("completed", if result.verified { "Verified" } else { "Unverified" })
        }
        Finish::Failed => ("failed", "Failed"),
        Finish::Skipped => ("skipped", "Skipped"),
    };
    End { end, reason: result.reason.map_or(otherwise, |reason| reason.name) }
}

#[cfg(test)]
mod tests;
