//! Tests of the metrics and their text format.

use flashjob_api::{
    DeviceState, DeviceStatus, FlashJob, FlashJobSpec, FlashJobStatus, Phase, Reason,
};
use flashjob_rules::flashjob::observed::Job;

use super::*;

fn scrape(metrics: &Metrics) -> String {
    metrics.text(Fleet::default(), &[]).unwrap()
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
}

fn result(finish: Finish, verified: bool, reason: Option<Reason>) -> DeviceResult {
    DeviceResult {
        uid: "a".into(),
        name: None,
        namespace: None,
        attempt: 1,
        finish,
        verified,
        reason,
        message: String::new(),
    }
}

#[test]
fn every_result_is_counted_by_its_end_and_reason() {
    let metrics = Metrics::default();
    let status = FlashJobStatus::default();
    let results = [
        result(Finish::Completed, true, None),
        result(Finish::Completed, false, None),
        result(Finish::Failed, false, Some(reason::POD_FAILED)),
        result(Finish::Failed, false, Some(reason::POD_FAILED)),
        result(Finish::Skipped, false, Some(reason::JOB_STOPPED)),
    ];
    metrics.count(&Transitions::between(&status, &status, &results));
    let text = scrape(&metrics);
    has(&text, r#"flashjob_device_results_total{end="completed",reason="Verified"} 1"#);
    has(&text, r#"flashjob_device_results_total{end="completed",reason="Unverified"} 1"#);
    has(&text, r#"flashjob_device_results_total{end="failed",reason="PodFailed"} 2"#);
    has(&text, r#"flashjob_device_results_total{end="skipped",reason="JobStopped"} 1"#);
    has(&text, r#"flashjob_device_results_total{end="failed",reason="GaveUp"} 0"#);
}

#[test]
fn attempts_are_counted_when_they_start_and_when_they_fail() {
    let metrics = Metrics::default();
    let status = |attempt, state, reason: Option<&str>| FlashJobStatus {
        devices: vec![DeviceStatus {
            uid: "a".into(),
            attempt,
            state,
            reason: reason.map(str::to_owned),
            ..DeviceStatus::default()
        }],
        ..FlashJobStatus::default()
    };
    let steps = [
        status(1, DeviceState::Pending, None),
        status(1, DeviceState::Exposing, None),
        status(1, DeviceState::Flashing, None),
        status(2, DeviceState::Pending, Some("FlashTimeout")),
        status(2, DeviceState::Exposing, None),
    ];
    for pair in steps.windows(2) {
        metrics.count(&Transitions::between(&pair[0], &pair[1], &[]));
    }
    let text = scrape(&metrics);
    has(&text, "flashjob_attempts_started_total 2");
    has(&text, r#"flashjob_attempts_failed_total{reason="FlashTimeout"} 1"#);
}

#[test]
fn gauges_count_the_jobs_that_are_there_and_no_others() {
    let metrics = Metrics::default();
    let mut job = FlashJob::new("roll-out", FlashJobSpec::default());
    let device =
        |state| DeviceStatus { uid: format!("{state:?}"), state, ..DeviceStatus::default() };
    let states = [
        DeviceState::Exposing,
        DeviceState::Flashing,
        DeviceState::Verifying,
        DeviceState::Failed,
    ];
    let devices = states.into_iter().map(device).collect();
    job.status = Some(FlashJobStatus {
        phase: Some(Phase::InProgress),
        devices,
        ..FlashJobStatus::default()
    });
    let job = Job::of(job);
    metrics.set_queue_depth(3);
    let text = metrics.text(Fleet::of([&job].into_iter()), &[]).unwrap();
    has(&text, "flashjob_devices_in_flight 2");
    has(&text, "flashjob_devices_waiting_for_address 1");
    has(&text, "flashjob_devices_verifying 1");
    has(&text, r#"flashjob_jobs{phase="InProgress"} 1"#);
    has(&text, "flashjob_queue_depth 3");
    let text = metrics.text(Fleet::of(std::iter::empty()), &[]).unwrap();
    has(&text, "flashjob_devices_in_flight 0");
    has(&text, r#"flashjob_jobs{phase="InProgress"} 0"#);
}

#[test]
fn a_call_that_a_limit_stopped_is_counted_under_that_limit() {
    let metrics = Metrics::default();
    let stopped: Result<(), _> = Err(CallError::OutOfMemory { limit: 1 });
    metrics.plugin_asked("esp32", "build", Duration::from_millis(3), &stopped);
    let text = scrape(&metrics);
    has(
        &text,
        r#"flashjob_plugin_calls_total{plugin="esp32",call="build",result="out-of-memory"} 1"#,
    );
    has(&text, r#"flashjob_plugin_limit_hits_total{plugin="esp32",limit="memory"} 1"#);
    has(&text, r#"flashjob_plugin_call_duration_seconds_count{plugin="esp32"} 1"#);
}

#[test]
fn a_plugin_that_was_not_fetched_was_not_verified() {
    let metrics = Metrics::default();
    let missing = LoadError::NotCached("registry.example/plugin:1".parse().unwrap());
    metrics.plugin_loaded("esp32", Some(&missing));
    metrics.plugin_loaded("esp32", None);
    let text = scrape(&metrics);
    has(&text, r#"flashjob_plugin_pulls_total{plugin="esp32",result="failed"} 1"#);
    has(&text, r#"flashjob_plugin_pulls_total{plugin="esp32",result="ok"} 1"#);
    has(&text, r#"flashjob_plugin_verifications_total{plugin="esp32",result="ok"} 1"#);
}

#[test]
fn the_text_says_what_process_and_version_this_is() {
    let metrics = Metrics::default();
    metrics.set_leader(true);
    let text = scrape(&metrics);
    has(&text, &format!("flashjob_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
    has(&text, "flashjob_leader 1");
    for name in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
        let value: f64 = line.split(' ').nth(1).and_then(|value| value.parse().ok()).expect(line);
        assert!(value >= 0.0, "{line}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn every_metric_stands_in_the_documentation_and_the_documentation_names_no_other() {
    // A family without a count yet is not in the text, but it is registered.
    let metrics = Metrics::default();
    let registry = format!("{:?}", metrics.registry);
    let families = registry
        .split("name: \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|name| format!("flashjob_{name}"));
    let text = scrape(&metrics);
    let process = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter(|line| line.starts_with("process_"));
    let process = process.filter_map(|line| line.split(' ').next()).map(str::to_owned);
    let mut registered: Vec<String> = families.chain(process).collect();
    registered.sort();
    let documentation = include_str!("../../../../../docs/metrics.md");
    let rows = documentation.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut documented: Vec<String> = rows
        .filter_map(|row| row.split('`').next())
        .filter(|name| !name.starts_with("OTEL_"))
        .map(family)
        .collect();
    documented.sort();
    assert_eq!(registered, documented);
}

/// Returns the name without the suffix of the metric's type.
fn family(name: &str) -> String {
    let name = name.strip_suffix("_total").unwrap_or(name);
    name.strip_suffix("_info").unwrap_or(name).to_owned()
}

#[test]
fn a_refused_configuration_shows_until_one_is_taken() {
    let metrics = Metrics::default();
    metrics.configuration_taken();
    metrics.configuration_refused();
    let timestamp_line = |text: &str| {
        text.lines()
            .find(|line| line.starts_with("flashjob_configuration_loaded_timestamp_seconds "))
            .map(str::to_owned)
    };
    let refused = scrape(&metrics);
    has(&refused, "flashjob_configuration_refused 1");
    assert!(timestamp_line(&refused).is_some_and(|line| !line.ends_with(" 0.0")), "{refused}");
    metrics.configuration_taken();
    let text = scrape(&metrics);
    has(&text, "flashjob_configuration_refused 0");
    assert_ne!(timestamp_line(&text), timestamp_line(&refused));
}
