//! A FlashRollout for people: batches with their counts, the remaining soak time, what it waits
//! for and what to do, reasons, failed devices.

use std::time::Duration;

use console::style;
use flashjob_api::{
    BatchState, BatchStatus, FailedDevice, FlashRollout, FlashRolloutStatus, LeftOut,
    RolloutCounts,
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::state::{
    advice, approving, asks, awaited_approval, going_on, is_approved, is_of_this_run, is_paused,
    other_approved_runs, status,
};
use crate::duration;
use crate::fleet::table::table;
use crate::fleet::view::{bar, coloured, firmware, reasons};
use crate::fleet::workload::{Frame, Workload, full_name};
use crate::text::without_control_characters;

/// Number of failed devices that are shown, unless all are requested.
const SHOWN: usize = 10;

/// Returns the number of devices that have a result.
pub fn results(counts: &RolloutCounts) -> u32 {
    // Absent and regressed devices are counted on their own, not as completed or failed.
    counts.completed + counts.failed + counts.skipped + counts.absent + counts.regressed
}

/// Returns the state of a FlashRollout in one word.
pub fn state(rollout: &FlashRollout) -> String {
    if rollout.is_in_deletion() && rollout.has_status() {
        return "Deleting".to_owned();
    }
    let status = status(rollout);
    match (status.phase, status.reason) {
        (Some(phase), _) => format!("{phase:?}"),
        // A FlashRollout that was invalid from its creation has no phase.
        (None, Some(reason)) => reason,
        (None, None) => "NotSeen".to_owned(),
    }
}

/// Returns a table with one row for each FlashRollout.
pub fn list(rollouts: &[FlashRollout], with_namespace: bool) -> String {
    let row = |rollout: &FlashRollout| {
        let status = status(rollout);
        let name = if with_namespace { full_name(rollout) } else { rollout.name_any() };
        let unseen = rollout.has_status() && rollout.is_behind();
        let unseen = unseen.then(|| "last change not seen by the operator yet".to_owned());
        let awaited = status.waiting_for.filter(|_| !rollout.is_in_deletion());
        [
            name,
            state(rollout),
            status.batch.unwrap_or_default(),
            status.progress.unwrap_or_default(),
            status.counts.unwrap_or_default().failed.to_string(),
            rollout.spec.version.clone(),
            unseen.or(awaited).unwrap_or_default(),
        ]
    };
    let headings = ["ROLLOUT", "STATE", "BATCH", "PROGRESS", "FAILED", "VERSION", "WAITS FOR"];
    table(headings, rollouts.iter().map(row))
}

/// Returns the status in one line, for a log.
pub fn line(rollout: &FlashRollout) -> String {
    let (name, status) = (rollout.name_any(), status(rollout));
    if status.phase.is_none() {
        // A FlashRollout that was invalid from its creation has a message, but no phase.
        return match status.message.as_deref().map(without_control_characters) {
            Some(message) => format!("{name} {}: {message}", state(rollout)),
            None => format!("{name}: no operator has processed it yet"),
        };
    }
    let batch = status.batch.as_ref().map(|batch| format!(" batch {batch},"));
    let counts = status.counts.unwrap_or_default();
    let mut line = format!(
        "{name} {}:{} {} of {} devices have a result, {} failed, {} in flight, {} verifying",
        state(rollout),
        batch.unwrap_or_default(),
        results(&counts),
        counts.planned,
        counts.failed + counts.regressed,
        counts.in_flight,
        counts.verifying
    );
    if let Some(reason) = status.reason.as_ref().filter(|_| is_paused(rollout)) {
        line.push_str(&format!("; {}", without_control_characters(reason)));
    }
    let goes_on = !rollout.is_over() && !rollout.is_in_deletion();
    if let Some(awaited) = status.waiting_for.as_ref().filter(|_| goes_on) {
        line.push_str(&format!("; waits for {}", without_control_characters(awaited)));
    }
    if let Some(todo) = to_do(rollout) {
        line.push_str(&format!(": {todo}"));
    }
    line
}

/// Returns the command that lets the rollout continue; none if nobody has to act.
fn to_do(rollout: &FlashRollout) -> Option<String> {
    // A status that is older than the spec could ask for what somebody has just done.
    if rollout.is_over() || rollout.is_behind() || rollout.is_in_deletion() {
        return None;
    }
    if is_paused(rollout) {
        return Some(going_on(rollout));
    }
    let batch = awaited_approval(rollout)?;
    Some(format!("{} lets it start", approving(rollout, &batch)))
}

/// Returns the whole status of one FlashRollout as text.
pub fn details(rollout: &FlashRollout, frame: Frame) -> String {
    let status = status(rollout);
    let run = status.run.as_ref().map(|run| format!("   run {run}")).unwrap_or_default();
    let mut lines = vec![format!(
        "FlashRollout {}   {}   firmware {} version {}{run}",
        style(full_name(rollout)).bold(),
        coloured(&state(rollout)),
        without_control_characters(&rollout.spec.firmware),
        without_control_characters(&rollout.spec.version)
    )];
    if status.phase.is_none() {
        let unseen =
            "No operator has processed it yet; kubectl flashjob check shows what is missing.";
        lines.push(
            status
                .message
                .as_deref()
                .map_or_else(|| unseen.to_owned(), without_control_characters),
        );
        return lines.join("\n");
    }
    lines.push(progress(&status));
    lines.extend(times(&status, frame.now));
    // Devices of the superseded run finish first; until then the status is that of the old run,
    // though the operator has observed the spec.
    if !rollout.is_behind() && !is_of_this_run(rollout) {
        lines.push("The spec requests a new run, which has not started yet.".to_owned());
    }
    if rollout.is_behind() {
        lines.push("The operator has not seen the last change yet.".to_owned());
    }
    lines.extend(status.message.as_deref().map(without_control_characters));
    lines.extend(waiting(rollout, &status));
    if frame.all {
        lines.extend(firmware(status.firmware.as_ref()));
    }
    lines.extend(left_out(&status.left_out.unwrap_or_default()));
    lines.extend(batches(rollout, &status, frame.now));
    // The message of one device says more than the general reason.
    let example = |name: &str| {
        let mut failed = status.failed.iter().filter(|device| device.reason == name);
        failed.find_map(|device| Some((device.instance.as_str(), device.message.as_deref()?)))
    };
    lines.extend(reasons("FAILED OR SKIPPED", &status.reasons, example));
    let counts = status.counts.unwrap_or_default();
    lines.extend(failed(&status.failed, counts.failed + counts.regressed, frame.all));
    lines.join("\n")
}

fn progress(status: &FlashRolloutStatus) -> String {
    let counts = status.counts.unwrap_or_default();
    let done = results(&counts);
    let unverified = match counts.unverified {
        0 => String::new(),
        count => format!(" ({count} unverified)"),
    };
    format!(
        "{} {done}/{}   completed {}{unverified}, failed {}, skipped {}, absent {}, regressed {}, \
         in flight {}, verifying {}",
        bar(done, counts.planned),
        counts.planned,
        counts.completed,
        counts.failed,
        counts.skipped,
        counts.absent,
        counts.regressed,
        counts.in_flight,
        counts.verifying
    )
}

/// Returns the time between two instants in words.
pub fn between(from: Timestamp, to: Timestamp) -> String {
    // Negative if the clock of this machine is behind the operator's; that is shown as 0.
    duration::in_words(Duration::try_from(to.duration_since(from)).unwrap_or_default())
}

fn times(status: &FlashRolloutStatus, now: Timestamp) -> Option<String> {
    let start = status.start_time.as_ref()?.0;
    Some(match &status.completion_time {
        Some(end) => format!("took {}", between(start, end.0)),
        None => format!("began {} ago", between(start, now)),
    })
}

/// Returns what the rollout waits for, and what to do.
fn waiting(rollout: &FlashRollout, status: &FlashRolloutStatus) -> Vec<String> {
    let mut lines = Vec::new();
    // Nobody can let it continue: the commands refuse to change it.
    if rollout.is_in_deletion() {
        return lines;
    }
    if !rollout.is_over()
        && let Some(awaited) = &status.waiting_for
    {
        lines.push(format!("Waits for: {}", style(without_control_characters(awaited)).bold()));
    }
    let advice = advice(rollout).filter(|_| !rollout.is_behind());
    let title = if advice.is_some() { "Commands" } else { "To do" };
    lines.extend(advice.map(|reason| format!("To do: {}", reason.action)));
    lines.extend(to_do(rollout).map(|todo| format!("{title}: {todo}")));
    lines
}

/// Describes the devices that the selector chose and that are not flashed.
pub fn left_out(left_out: &LeftOut) -> Option<String> {
    let parts: Vec<String> = [
        (left_out.current, "already report the version"),
        (left_out.newer, "report a higher version"),
        (left_out.too_old, "report a version below minVersion"),
        (left_out.duplicates, "are a second Instance of a device"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, words)| format!("{count} {words}"))
    .collect();
    let unknown = match left_out.unknown_comparison {
        0 => String::new(),
        count => format!("Flashed although their version cannot be compared: {count}."),
    };
    match (parts.is_empty(), unknown.is_empty()) {
        (true, true) => None,
        (true, false) => Some(unknown),
        (false, _) => {
            Some(format!("Left out: {}. {unknown}", parts.join(", ")).trim_end().to_owned())
        }
    }
}

fn batches(rollout: &FlashRollout, status: &FlashRolloutStatus, now: Timestamp) -> Vec<String> {
    if status.batches.is_empty() {
        return Vec::new();
    }
    let run = status.run.as_deref().unwrap_or_default();
    let row = |(place, batch): (usize, &BatchStatus)| {
        let counts = &batch.counts;
        [
            format!("  {}", place + 1),
            batch.name.clone(),
            format!("{:?}", batch.state),
            format!("{}/{}", results(counts), counts.planned.max(batch.planned)),
            counts.completed.to_string(),
            (counts.failed + counts.regressed).to_string(),
            (counts.skipped + counts.absent).to_string(),
            counts.in_flight.to_string(),
            counts.verifying.to_string(),
            note(rollout, batch, run, now),
        ]
    };
    let headings = [
        "  #",
        "BATCH",
        "STATE",
        "DONE",
        "COMPLETED",
        "FAILED",
        "NOT TRIED",
        "IN FLIGHT",
        "VERIFYING",
        "NOTE",
    ];
    vec![
        String::new(),
        style("BATCHES").bold().to_string(),
        table(headings, status.batches.iter().enumerate().map(row)),
    ]
}

/// Returns the soak or the approval of a batch in words.
fn note(rollout: &FlashRollout, batch: &BatchStatus, run: &str, now: Timestamp) -> String {
    match (batch.state, &batch.soak_until) {
        // The operator ends the soak at its next reconciliation, so the time may have passed
        // already.
        (BatchState::Soaking, Some(until)) if until.0 > now => {
            format!("soaks for {} more", between(now, until.0))
        }
        (BatchState::Soaking, _) => "soaks".to_owned(),
        (BatchState::Pending, _) if asks(rollout, &batch.name) => {
            if is_approved(rollout, &batch.name, run) {
                return "approved".to_owned();
            }
            match other_approved_runs(rollout, &batch.name, run).join(", ").as_str() {
                "" => "needs approval".to_owned(),
                others => format!("needs approval for run {run}; approved for run {others}"),
            }
        }
        _ => String::new(),
    }
}

/// Returns the failed devices that the status lists, of `total`.
fn failed(devices: &[FailedDevice], total: u32, all: bool) -> Vec<String> {
    if devices.is_empty() {
        return Vec::new();
    }
    let row_count = if all { devices.len() } else { SHOWN.min(devices.len()) };
    let row = |device: &FailedDevice| {
        [
            format!("  {}", device.instance),
            device.batch.clone(),
            device.reason.clone(),
            device.message.clone().unwrap_or_default(),
        ]
    };
    let headings = ["  INSTANCE", "BATCH", "REASON", "MESSAGE"];
    let mut lines = vec![
        String::new(),
        style("FAILED DEVICES").bold().to_string(),
        table(headings, devices[..row_count].iter().map(row)),
    ];
    // The status lists at most 100.
    let unlisted = (total as usize).saturating_sub(devices.len());
    lines.extend(match (devices.len() - row_count, unlisted) {
        (0, 0) => None,
        (hidden, 0) => Some(format!("  … and {hidden} more; -o wide shows all")),
        (0, unlisted) => Some(format!("  … and {unlisted} more, which the status does not list")),
        (hidden, unlisted) => Some(format!(
            "  … and {} more; -o wide shows {hidden} of them, the status does not list the others",
            hidden + unlisted
        )),
    });
    lines
}

/// Returns a FlashRollout in the form for programs.
pub fn json(rollout: &FlashRollout) -> Value {
    let status = status(rollout);
    json!({
        "namespace": rollout.namespace(), "name": rollout.name_any(), "state": state(rollout),
        "firmware": rollout.spec.firmware, "version": rollout.spec.version, "run": status.run,
        "batch": status.batch, "progress": status.progress, "counts": status.counts,
        "message": status.message, "reason": status.reason, "waitingFor": status.waiting_for,
        "approvalOf": awaited_approval(rollout), "reasons": status.reasons,
        "batches": status.batches, "leftOut": status.left_out, "failed": status.failed,
        "startTime": status.start_time, "completionTime": status.completion_time,
    })
}

#[cfg(test)]
mod tests {
    use flashjob_api::RolloutPhase;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::super::tests::rollout;
    use super::*;

    fn frame(now: i64) -> Frame {
        Frame { now: Timestamp::from_second(now).expect("a time"), all: false, width: 140 }
    }

    #[test]
    fn one_that_was_invalid_from_its_beginning_says_which_field() {
        let mut invalid = rollout();
        invalid.status = Some(FlashRolloutStatus {
            reason: Some("InvalidSpec".to_owned()),
            message: Some("this FlashRollout is invalid: spec.maxFailed".to_owned()),
            ..FlashRolloutStatus::default()
        });
        let text = details(&invalid, frame(1_000));
        assert!(text.contains("InvalidSpec") && text.contains("spec.maxFailed"), "{text}");
        assert!(!text.contains("No operator has processed it"), "{text}");
        let expected = "hall InvalidSpec: this FlashRollout is invalid: spec.maxFailed";
        assert_eq!(line(&invalid), expected);
    }

    #[test]
    fn batches_are_shown_with_the_soak_that_is_left_and_approvals_that_are_missing() {
        let text = details(&rollout(), frame(1_000));
        for expected in [
            "FlashRollout fleet/hall   Soaking   firmware r.io/f:2 version 2   run 0a1b2c",
            "completed 2, failed 1, skipped 0, absent 0, regressed 0, in flight 2, verifying 0",
            "1   canary   Soaking   1/1",
            "soaks for 10 min more",
            "needs approval",
            "1 x FlashTimeout",
            "To do: Check that the device reaches the external address",
            "For example akri-7: too slow",
            "akri-7     canary   FlashTimeout   too slow",
        ] {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
        assert!(!text.contains("requests a new run"), "{text}");
        let mut other = rollout();
        other.spec.approvals = Some(vec!["ten@ffffff".to_owned()]);
        let text = details(&other, frame(1_000));
        let expected = "needs approval for run 0a1b2c; approved for run ffffff";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn failed_devices_that_the_status_does_not_list_are_counted() {
        let device = |number: usize| FailedDevice {
            instance: format!("akri-{number}"),
            batch: "ten".to_owned(),
            reason: "FlashTimeout".to_owned(),
            message: None,
        };
        let last_line = |listed: usize, total: u32, all: bool| {
            let devices: Vec<_> = (0..listed).map(device).collect();
            failed(&devices, total, all).pop().unwrap_or_default()
        };
        assert_eq!(last_line(12, 12, false), "  … and 2 more; -o wide shows all");
        assert!(!last_line(12, 12, true).contains("more"));
        let expected =
            "  … and 490 more; -o wide shows 90 of them, the status does not list the others";
        assert_eq!(last_line(100, 500, false), expected);
        assert_eq!(last_line(100, 500, true), "  … and 400 more, which the status does not list");
    }

    #[test]
    fn what_it_waits_for_is_named_with_the_command_that_lets_it_go_on() {
        let mut rollout = rollout();
        let status = rollout.status.as_mut().expect("a status");
        status.phase = Some(RolloutPhase::Waiting);
        status.waiting_for = Some("approval of batch ten".to_owned());
        status.batches[0].state = BatchState::Passed;
        let command = "kubectl flashjob rollout approve hall/ten -n fleet";
        assert!(line(&rollout).contains("waits for approval of batch ten"), "{}", line(&rollout));
        assert!(line(&rollout).contains(command) && rollout.is_blocked());
        assert!(details(&rollout, frame(0)).contains(&format!("To do: {command}")));
        rollout.spec.approvals = Some(vec!["ten@0a1b2c".to_owned()]);
        assert!(!rollout.is_blocked() && !line(&rollout).contains(command));
        let status = rollout.status.as_mut().expect("a status");
        status.phase = Some(RolloutPhase::Paused);
        status.reason = Some("TooManyFailed".to_owned());
        let action = "To do: See status.failed; then set a new spec.retry";
        assert!(details(&rollout, frame(0)).contains(action), "{}", details(&rollout, frame(0)));
        assert!(rollout.is_blocked() && line(&rollout).contains("rollout retry hall -n fleet"));
        rollout.spec.suspend = Some(true);
        assert!(line(&rollout).contains("rollout resume hall -n fleet"), "{}", line(&rollout));
        rollout.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let text =
            [details(&rollout, frame(0)), line(&rollout), list(&[rollout], false)].join("\n");
        for unwanted in ["approval of batch ten", "See status.failed", "rollout resume"] {
            assert!(!text.contains(unwanted), "{unwanted}: {text}");
        }
    }

    #[test]
    fn a_rollout_behind_one_that_waits_for_a_person_is_blocked_and_says_for_which_and_what_to_do()
    {
        let mut rollout = rollout();
        rollout.spec.approvals = Some(vec!["ten@0a1b2c".to_owned()]);
        let status = rollout.status.as_mut().expect("a status");
        (status.phase, status.reason) =
            (Some(RolloutPhase::Waiting), Some("OlderRollout".to_owned()));
        assert!(!rollout.is_blocked());
        let status = rollout.status.as_mut().expect("a status");
        status.reason = Some("OlderRolloutBlocked".to_owned());
        let awaited = "FlashRollout before, which waits for spec.suspend to be false";
        status.waiting_for = Some(awaited.to_owned());
        assert!(rollout.is_blocked() && line(&rollout).contains(awaited), "{}", line(&rollout));
        let text = details(&rollout, frame(0));
        assert!(text.contains("To do: Unblock the FlashRollout that"), "{text}");
        assert!(!text.contains("To do: Nothing"), "{text}");
    }

    #[test]
    fn a_run_that_is_over_fails_the_command_unless_it_completed() {
        let mut rollout = rollout();
        let mut code = |phase| {
            rollout.status.as_mut().expect("a status").phase = Some(phase);
            rollout.failure().map(|failure| failure.reason)
        };
        assert_eq!(code(RolloutPhase::Completed), None);
        assert_eq!(code(RolloutPhase::Failed), Some("EndedWithFailures"));
        assert_eq!(code(RolloutPhase::Aborted), Some("Aborted"));
        assert_eq!(code(RolloutPhase::Soaking), None);
        let old = FlashRollout { status: None, ..rollout };
        assert!(details(&old, frame(0)).contains("No operator has processed it"));
        assert_eq!(state(&old), "NotSeen");
    }

    #[test]
    fn devices_that_are_left_out_are_counted_by_cause() {
        let counts = LeftOut { current: 3, duplicates: 1, ..LeftOut::default() };
        let words = "Left out: 3 already report the version, 1 are a second Instance of a device.";
        assert_eq!(left_out(&counts).as_deref(), Some(words));
        assert_eq!(left_out(&LeftOut::default()), None);
    }
}
