//! A FlashJob for people: progress, reasons with advice, devices in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use console::{Term, style};
use flashjob_api::{
    Counts, DeviceStatus, FirmwareStatus, FlashJob, FlashJobStatus, Phase, Reason, condition,
    reason,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::pace::{Pace, results};
use super::run::results_of_run;
use super::table::table;
use super::workload::{Frame, Workload, full_name, resuming};
use crate::duration;
use crate::text::without_control_characters;

/// Number of cells in a progress bar.
const BAR: usize = 24;
/// Smallest width of a window, in columns, at which devices are shown as a table.
const WIDE: usize = 140;
/// Smallest width, in columns, that the output is fitted into.
const NARROW: usize = 20;
/// Number of devices in flight that are shown, unless all are requested.
const SHOWN: usize = 10;

/// Returns the width of a terminal in columns; `WIDE` if the output is no terminal.
pub fn width(terminal: &Term) -> usize {
    match terminal.is_term() {
        true => usize::from(terminal.size().1).max(NARROW),
        false => WIDE,
    }
}

/// Returns the state of a FlashJob in one word.
pub fn state(job: &FlashJob) -> String {
    let Some(status) = &job.status else { return "NotSeen".to_owned() };
    if job.is_in_deletion() {
        return "Deleting".to_owned();
    }
    match (job.ended(), status.phase) {
        (Some(Phase::Failed), _) => "Failed".to_owned(),
        (Some(phase), _) => format!("{phase:?}"),
        (None, _) if condition::holds(&status.conditions, condition::SUSPENDED) => {
            "Paused".to_owned()
        }
        (None, _) if condition::holds(&status.conditions, condition::STALLED) => {
            "Stalled".to_owned()
        }
        (None, Some(_)) => "InProgress".to_owned(),
        (None, None) => "NotSeen".to_owned(),
    }
}

/// Returns the status for the run that the spec asks for. Results of the previous run are left
/// out; its devices in flight are shown, as the new run waits for them.
fn current(job: &FlashJob) -> FlashJobStatus {
    let status = job.status.clone().unwrap_or_default();
    if job.status.is_none() || results_of_run(job).is_some() {
        return status;
    }
    let total = u32::try_from(job.spec.uuid.len()).unwrap_or(u32::MAX);
    let devices: Vec<_> = status.devices.into_iter().filter(DeviceStatus::is_locked).collect();
    // Devices in flight of the previous run may no longer be in the spec, so there can be more of
    // them than uids; `total - active` below must not underflow.
    let active = u32::try_from(devices.len()).unwrap_or(u32::MAX).min(total);
    FlashJobStatus {
        phase: status.phase,
        observed_generation: status.observed_generation,
        conditions: status.conditions,
        counts: Some(Counts { total, active, pending: total - active, ..Counts::default() }),
        progress: Some(format!("0/{total}")),
        message: Some("The results so far are from another firmware or run.".to_owned()),
        devices,
        ..FlashJobStatus::default()
    }
}

/// Returns a progress bar.
pub fn bar(done: u32, total: u32) -> String {
    // A FlashRollout without a plan has no devices yet.
    let share = f64::from(done) / f64::from(total.max(1));
    // At most BAR, and never negative.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and BAR"
    )]
    let full = ((share * BAR as f64) as usize).min(BAR);
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR - full))
}

/// Returns reasons, the most frequent first, each with advice and an example: a device and its
/// message.
pub fn reasons<'a>(
    title: &str,
    reasons: &BTreeMap<String, u32>,
    example: impl Fn(&str) -> Option<(&'a str, &'a str)>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if reasons.is_empty() {
        return lines;
    }
    lines.push(String::new());
    lines.push(style(title).bold().to_string());
    let mut sorted: Vec<_> = reasons.iter().collect();
    sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
    for (name, count) in sorted {
        lines.push(format!("  {count} x {}", style(name).bold()));
        lines.extend(advice(name));
        if let Some((device, message)) = example(name) {
            lines.push(format!(
                "      For example {device}: {}",
                without_control_characters(message)
            ));
        }
    }
    lines
}

/// Returns the meaning of a reason, and what to do.
fn advice(name: &str) -> Vec<String> {
    let lines = |reason: Reason| {
        vec![format!("      {}", reason.meaning), format!("      To do: {}", reason.action)]
    };
    reason::by_name(name).map(lines).unwrap_or_default()
}

/// Returns the pace in words.
fn pace_shown(pace: Pace) -> String {
    let rate = match pace.devices_per_minute {
        Some(rate) if rate >= 10.0 => format!("{rate:.0} devices a minute"),
        Some(rate) => format!("{rate:.1} devices a minute"),
        None => "unknown".to_owned(),
    };
    let time_left = match pace.seconds_left {
        Some(seconds) => format!("about {}", duration::in_words(Duration::from_secs(seconds))),
        None => "unknown".to_owned(),
    };
    format!("rate {rate}, time left {time_left}")
}

/// Returns the whole status of one FlashJob as text.
pub fn details(job: &FlashJob, pace: Pace, frame: Frame) -> String {
    let mut lines = vec![format!(
        "FlashJob {}   {}   firmware {} version {}",
        style(full_name(job)).bold(),
        coloured(&state(job)),
        without_control_characters(&job.spec.firmware),
        without_control_characters(&job.spec.version)
    )];
    if job.status.is_none() {
        lines.push(
            "No operator has processed it yet; kubectl flashjob check shows what is missing."
                .to_owned(),
        );
        return lines.join("\n");
    }
    let status = current(job);
    let counts = status.counts.unwrap_or_default();
    let done = results(&counts);
    lines.push(format!(
        "{} {done}/{}   completed {}{}, failed {}, skipped {}, in flight {}, verifying {}, \
         pending {}",
        bar(done, counts.total),
        counts.total,
        counts.completed,
        match counts.unverified {
            0 => String::new(),
            unverified => format!(" ({unverified} unverified)"),
        },
        counts.failed,
        counts.skipped,
        counts.active,
        counts.verifying,
        counts.pending
    ));
    if !job.is_over() && !job.is_in_deletion() {
        lines.push(pace_shown(pace));
    } else if let (Some(start), Some(end)) = (&status.start_time, &status.completion_time) {
        let took = end.0.duration_since(start.0);
        let took = Duration::try_from(took).unwrap_or_default();
        lines.push(format!("took {}", duration::in_words(took)));
    }
    if job.is_behind() {
        lines.push("The operator has not seen the last change yet.".to_owned());
    }
    if let Some(message) = &status.message {
        lines.push(without_control_characters(message));
    }
    lines.extend(firmware(status.firmware.as_ref()));
    if job.is_suspended() && job.is_over() && !job.is_in_deletion() {
        lines.push(format!("It is paused, so added devices wait: {}", resuming(job)));
    }
    // The message of one device says more than the general reason.
    let example = |name: &str| {
        let of_reason = |device: &&DeviceStatus| device.reason.as_deref() == Some(name);
        let mut devices = status.devices.iter().filter(of_reason);
        devices.find_map(|device| Some((device.uid.as_str(), device.message.as_deref()?)))
    };
    lines.extend(reasons("FAILED OR SKIPPED", &status.reasons, example));
    lines.extend(reasons("WAITING", &status.waiting, example));
    lines.extend(in_flight(&status.devices, frame));
    lines.join("\n")
}

/// Returns the resolved firmware of a run, as lines of text.
pub fn firmware(firmware: Option<&FirmwareStatus>) -> Vec<String> {
    let Some(firmware) = firmware else { return Vec::new() };
    let mut lines = vec![format!("Firmware: {}", without_control_characters(&firmware.reference))];
    lines.extend(
        firmware
            .signer
            .as_ref()
            .map(|signer| format!("Signed by: {}", without_control_characters(signer))),
    );
    if !firmware.platforms.is_empty() {
        lines.push(format!(
            "For device types: {}",
            without_control_characters(&firmware.platforms.join(", "))
        ));
    }
    lines
}

fn in_flight(devices: &[DeviceStatus], Frame { now, all, width }: Frame) -> Vec<String> {
    let devices: Vec<_> = devices.iter().filter(|device| device.is_locked()).collect();
    if devices.is_empty() {
        return Vec::new();
    }
    let row_count = if all { devices.len() } else { SHOWN.min(devices.len()) };
    let mut lines = vec![String::new(), style("IN FLIGHT OR VERIFYING").bold().to_string()];
    let row = |device: &&DeviceStatus| {
        let since = device.holds_since().map(|since| now.duration_since(since));
        let since = since.map(|since| Duration::try_from(since).unwrap_or_default());
        [
            format!("  {}", device.uid),
            device.name.clone().unwrap_or_default(),
            format!("{:?}", device.state),
            device.attempt.to_string(),
            since.map(duration::in_words).unwrap_or_default(),
            device.pod.clone().unwrap_or_default(),
            device.message.clone().or(device.reason.clone()).unwrap_or_default(),
        ]
    };
    let headings = ["  UID", "INSTANCE", "STATE", "ATTEMPT", "SINCE", "POD", "MESSAGE"];
    let rows = devices[..row_count].iter().map(row);
    if width >= WIDE {
        lines.push(table(headings, rows));
    } else {
        let narrow = |[uid, _, state, attempt, since, _, message]: [String; 7]| {
            let message = if message.is_empty() {
                message
            } else {
                format!(": {}", without_control_characters(&message))
            };
            [uid, format!("    {state}, attempt {attempt}, {since}{message}")]
        };
        lines.extend(rows.flat_map(narrow));
    }
    if row_count < devices.len() {
        lines.push(format!("  … and {} more; -o wide shows all", devices.len() - row_count));
    }
    lines
}

/// Returns the word for a state, in its colour.
pub fn coloured(state: &str) -> String {
    let styled = style(state).bold();
    match state {
        "Completed" => styled.green(),
        "Failed" | "Stalled" | "Aborted" => styled.red(),
        "Paused" => styled.yellow(),
        _ => styled,
    }
    .to_string()
}

/// Returns a table with one row for each FlashJob.
pub fn list(jobs: &[FlashJob], with_namespace: bool) -> String {
    let row = |job: &FlashJob| {
        let name = match with_namespace {
            true => full_name(job),
            false => job.name_any(),
        };
        let status = current(job);
        let counts = status.counts.unwrap_or_default();
        let reasons = status.reasons.iter().chain(&status.waiting);
        let reasons = reasons.map(|(name, count)| format!("{count} x {name}"));
        let unseen = job.status.is_some() && job.is_behind();
        let unseen = unseen.then(|| "last change not seen by the operator yet".to_owned());
        let reasons: Vec<_> = unseen.into_iter().chain(reasons).collect();
        [
            name,
            state(job),
            status.progress.unwrap_or_default(),
            counts.active.to_string(),
            counts.verifying.to_string(),
            counts.failed.to_string(),
            job.spec.version.clone(),
            reasons.join(", "),
        ]
    };
    let headings =
        ["NAME", "STATE", "PROGRESS", "IN FLIGHT", "VERIFYING", "FAILED", "VERSION", "REASONS"];
    table(headings, jobs.iter().map(row))
}

/// Returns the status in one line, for a log.
pub fn line(job: &FlashJob) -> String {
    let note = match (job.is_in_deletion(), job.is_suspended() && !job.is_over()) {
        (true, _) => format!("; {}", deletion(job)),
        (false, true) => format!("; it is paused: {}", resuming(job)),
        (false, false) => String::new(),
    };
    let Some(counts) = current(job).counts else {
        return format!("{}: no operator has processed it yet{note}", job.name_any());
    };
    format!(
        "{} {}: {} of {} devices have a result, {} failed, {} in flight, {} verifying{note}",
        job.name_any(),
        state(job),
        results(&counts),
        counts.total,
        counts.failed,
        counts.active,
        counts.verifying
    )
}

/// Returns what the deletion of a FlashJob waits for, as part of a sentence.
fn deletion(job: &FlashJob) -> String {
    let mut conditions = job.status.iter().flat_map(|status| &status.conditions);
    // Only a status of the deletion has these reasons; its message names what is waited for.
    let reasons = [condition::DELETING, reason::POD_LOST.name];
    let told = conditions.find(|condition| {
        condition.type_ == condition::RECONCILING && reasons.contains(&condition.reason.as_str())
    });
    match told {
        Some(told) => without_control_characters(&told.message),
        None => "being deleted, until the operator has stopped its Pods".to_owned(),
    }
}

/// Returns a FlashJob in the form for programs.
pub fn json(job: &FlashJob, pace: Pace) -> Value {
    let status = current(job);
    json!({
        "namespace": job.namespace(), "name": job.name_any(), "state": state(job),
        "firmware": job.spec.firmware, "version": job.spec.version,
        "progress": status.progress, "counts": status.counts, "message": status.message,
        "reasons": status.reasons, "waiting": status.waiting, "pace": pace,
        "startTime": status.start_time, "completionTime": status.completion_time,
        "devices": status.devices,
    })
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashJobSpec;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn resolved_firmware_is_shown_with_its_signer_and_what_it_is_for() {
        let resolved = FirmwareStatus {
            reference: "r.io/f@sha256:0a".to_owned(),
            signer: Some("ours.pub".to_owned()),
            platforms: vec!["esp32".to_owned()],
            ..FirmwareStatus::default()
        };
        assert_eq!(
            firmware(Some(&resolved)),
            ["Firmware: r.io/f@sha256:0a", "Signed by: ours.pub", "For device types: esp32"]
        );
        assert_eq!(firmware(None), [""; 0]);
    }

    #[test]
    fn devices_in_flight_and_verifying_are_counted_apart_wherever_they_are_shown() {
        let mut job = FlashJob::new("job", FlashJobSpec::default());
        let counts = Counts { total: 7, active: 1, verifying: 4, pending: 2, ..Counts::default() };
        job.status = Some(FlashJobStatus {
            counts: Some(counts),
            run: job.spec.effective().ok().map(|spec| spec.run),
            ..FlashJobStatus::default()
        });
        let listed = list(&[job.clone()], false);
        let cells = |line: usize| {
            let line = listed.lines().nth(line).unwrap_or_default();
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        };
        let cell = |heading: &str| {
            cells(0)
                .into_iter()
                .zip(cells(1))
                .find(|(one, _)| *one == heading)
                .map(|(_, cell)| cell)
        };
        assert_eq!(cell("IN FLIGHT"), Some("1"), "{listed}");
        assert_eq!(cell("VERIFYING"), Some("4"), "{listed}");
        let frame = Frame { now: jiff::Timestamp::UNIX_EPOCH, all: false, width: WIDE };
        let text = details(&job, Pace::default(), frame);
        assert!(text.contains("in flight 1, verifying 4"), "{text}");
        assert!(line(&job).contains("1 in flight, 4 verifying"), "{}", line(&job));
    }

    #[test]
    fn the_line_of_a_deletion_names_what_its_status_says_is_waited_for() {
        let mut job = FlashJob::new("hall-3", FlashJobSpec::default());
        job.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let general = "; being deleted, until the operator has stopped its Pods";
        assert!(line(&job).ends_with(general), "{}", line(&job));
        let message = "being deleted; waiting for Pod fj-hall-3 to be removed";
        let status = job.status.get_or_insert_default();
        condition::set(
            &mut status.conditions,
            condition::RECONCILING,
            true,
            condition::DELETING,
            message,
            None,
            Timestamp::UNIX_EPOCH,
        );
        assert!(line(&job).ends_with(&format!("; {message}")), "{}", line(&job));
    }

    #[test]
    fn a_job_in_deletion_is_not_said_to_wait_for_a_resume_that_would_be_refused() {
        let mut job = FlashJob::new("job", FlashJobSpec::default());
        job.spec.suspend = Some(true);
        job.status = Some(FlashJobStatus {
            phase: Some(Phase::Completed),
            run: job.spec.effective().ok().map(|spec| spec.run),
            ..FlashJobStatus::default()
        });
        let frame = Frame { now: jiff::Timestamp::UNIX_EPOCH, all: false, width: WIDE };
        let advice = "kubectl flashjob resume job";
        assert!(details(&job, Pace::default(), frame).contains(advice));
        job.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let text = details(&job, Pace::default(), frame);
        assert!(text.contains("Deleting") && !text.contains(advice), "{text}");
    }

    #[test]
    fn results_of_another_firmware_are_not_shown_as_those_of_this_one() {
        let spec = |version: &str| FlashJobSpec {
            uuid: vec!["a".to_owned(), "b".to_owned()],
            firmware: "a:1".to_owned(),
            version: version.to_owned(),
            ..FlashJobSpec::default()
        };
        let mut job = FlashJob::new("job", spec("1"));
        job.status = Some(FlashJobStatus {
            run: job.spec.effective().ok().map(|spec| spec.run),
            counts: Some(Counts { total: 2, completed: 2, ..Counts::default() }),
            ..FlashJobStatus::default()
        });
        assert_eq!(json(&job, Pace::default())["counts"]["completed"], 2);
        job.spec = spec("2");
        let object = json(&job, Pace::default());
        assert_eq!(
            (&object["counts"]["completed"], &object["progress"]),
            (&json!(0), &json!("0/2"))
        );
        assert!(line(&job).contains("0 of 2 devices have a result"), "{}", line(&job));
    }
}
