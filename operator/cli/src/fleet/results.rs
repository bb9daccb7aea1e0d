//! `report`: the result of each device of a FlashJob.

use std::collections::{HashMap, HashSet};

use clap::Args;
use flashjob_api::{DeviceState, DeviceStatus, FlashJob, FlashJobStatus};
use flashjob_rules::count::counted;
use kube::ResourceExt;
use quick_junit::{NonSuccessKind, Report as JunitReport, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;
use serde_json::json;

use super::inventory;
use super::run::results_of_run;
use super::table::table;
use super::workload::Workload;
use crate::cluster::Scope;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::report::Report;
use crate::text::without_control_characters;

/// Results of a FlashJob.
#[derive(Debug, Args)]
pub struct Results {
    /// Name of the FlashJob.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    scope: Scope,
}

/// Result of one device.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    uid: String,
    instance: Option<String>,
    /// Version before the flash; none if the device reported none.
    from: Option<String>,
    to: String,
    result: &'static str,
    reason: Option<String>,
    message: Option<String>,
    /// None if no attempt began.
    attempts: Option<u32>,
    /// Seconds from the start of the first attempt to the result; none if one of them is missing.
    seconds: Option<u32>,
    /// True if a completed device did not prove the new version.
    unverified: bool,
    /// Version that an unverified device reported; none if it reported none.
    reported: Option<String>,
    /// True for a device that was removed from `spec.uuid` while its attempt was in progress.
    removed: bool,
}

pub async fn run(command: &Results) -> Result<Report, Failure> {
    let place = command.scope.place().await?;
    let job = place.read::<FlashJob>(&command.name).await?;
    // Names are only for people; without the right to list Instances they are left out.
    let instances = inventory::devices(&place.client, None).await;
    let instances = match instances {
        Err(kube::Error::Api(_)) => {
            inventory::devices(&place.client, Some(&place.namespace)).await
        }
        all => all,
    };
    let instances = instances.unwrap_or_default();
    let names: HashMap<&str, &str> =
        instances.iter().map(|device| (device.uid.as_str(), device.name.as_str())).collect();
    let rows = rows(&job, &names);
    let text = table(
        ["UID", "INSTANCE", "FROM", "TO", "RESULT", "REASON", "ATTEMPTS", "SECONDS"],
        rows.iter().map(|row| {
            let [uid, instance, from, to, _, reason, attempts, seconds, ..] = row.cells();
            [uid, instance, from, to, row.shown_result(), reason, attempts, seconds]
        }),
    );
    let counts = results_of_run(&job).and_then(|status| status.counts).unwrap_or_default();
    // A status that an older operator wrote has only their number.
    let marked = rows.iter().filter(|row| row.unverified).count();
    let mut text = match (counts.unverified as usize).saturating_sub(marked) {
        0 => text,
        unlisted_count => format!(
            "{text}\nNote: {} more of those that completed did not prove the new version; the \
             status does not record which.",
            counted(unlisted_count, "device")
        ),
    };
    if job.is_behind() {
        text.push_str("\nNote: the operator has not seen the last change yet.");
    }
    let headings = [
        "uid",
        "instance",
        "from",
        "to",
        "result",
        "reason",
        "attempts",
        "seconds",
        "message",
        "unverified",
        "reported",
        "removed",
    ];
    let csv = csv(&headings, rows.iter().map(|row| row.cells().to_vec()))?;
    let junit = junit(&job, &rows)?;
    Ok(Report::new(
        text,
        json!({"job": job.name_any(), "unverified": counts.unverified, "devices": rows}),
    )
    .with(Output::Csv, csv)
    .with(Output::Junit, junit))
}

impl Row {
    /// Returns the result for people.
    fn shown_result(&self) -> String {
        match &self.reported {
            _ if self.removed => format!("{}, removed from spec.uuid", self.result),
            Some(version) => format!(
                "{}, unverified: reports {}",
                self.result,
                without_control_characters(version)
            ),
            None if self.unverified => format!("{}, unverified", self.result),
            None => self.result.to_owned(),
        }
    }

    fn cells(&self) -> [String; 12] {
        let text = |text: &Option<String>| {
            text.as_deref().map(without_control_characters).unwrap_or_default()
        };
        let number =
            |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        [
            self.uid.clone(),
            text(&self.instance),
            text(&self.from),
            without_control_characters(&self.to),
            self.result.to_owned(),
            text(&self.reason),
            number(self.attempts),
            number(self.seconds),
            text(&self.message),
            self.unverified.to_string(),
            text(&self.reported),
            self.removed.to_string(),
        ]
    }
}

fn rows(job: &FlashJob, names: &HashMap<&str, &str>) -> Vec<Row> {
    let status = results_of_run(job).cloned().unwrap_or_default();
    let records: HashMap<&str, &DeviceStatus> =
        status.devices.iter().map(|device| (device.uid.as_str(), device)).collect();
    let lists = [
        ("completed", &status.completed_uuids),
        ("failed", &status.failed_uuids),
        ("skipped", &status.skipped_uuids),
    ];
    let results: HashMap<&str, &'static str> = lists
        .into_iter()
        .flat_map(|(result, uids)| uids.iter().map(move |uid| (uid.as_str(), result)))
        .collect();
    let removed = removed(job, &status);
    let uids = || job.spec.uuid.iter().chain(removed.iter().copied());
    let unfinished_uids = uids().filter(|uid| !results.contains_key(uid.as_str()));
    let waiting = shared_reason(&status, unfinished_uids.count());
    let row = |(place, uid): (usize, &String)| {
        let record = records.get(uid.as_str()).copied();
        let details = status.results.get(uid);
        let result = results.get(uid.as_str()).copied();
        let waiting = waiting.filter(|_| result.is_none());
        let result = result.unwrap_or_else(|| unfinished(record));
        let attempt =
            record.filter(|record| has_started_an_attempt(record)).map(|record| record.attempt);
        Row {
            uid: uid.clone(),
            instance: record
                .and_then(|record| record.name.clone())
                .or_else(|| names.get(uid.as_str()).map(|name| (*name).to_owned())),
            from: details
                .and_then(|details| details.from.clone())
                .or_else(|| record.and_then(|record| record.baseline_version.clone())),
            to: job.spec.version.clone(),
            result,
            reason: record.and_then(|record| record.reason.clone()).or(waiting.cloned()),
            message: record.and_then(|record| record.message.clone()),
            attempts: details.map(|details| details.attempts).or(attempt),
            seconds: details.map(|details| details.seconds),
            unverified: details.is_some_and(|details| details.unverified),
            reported: details.and_then(|details| details.reported.clone()),
            removed: place >= job.spec.uuid.len(),
        }
    };
    uids().enumerate().map(row).collect()
}

/// Returns the devices that were removed from the spec while their attempts were in progress. They
/// get no result, but may still be flashed; the FlashJob is not over before they have ended.
fn removed<'a>(job: &FlashJob, status: &'a FlashJobStatus) -> Vec<&'a String> {
    let named: HashSet<&String> = job.spec.uuid.iter().collect();
    let locked = status.devices.iter().filter(|record| record.is_locked());
    locked.map(|record| &record.uid).filter(|uid| !named.contains(uid)).collect()
}

/// Returns the reason that all devices without a result share, of which there are `unfinished`.
/// Devices without a record are only counted by reason, so several reasons cannot be assigned.
fn shared_reason(status: &FlashJobStatus, unfinished: usize) -> Option<&String> {
    let mut waiting = status.waiting.iter();
    let (reason, count) = waiting.next()?;
    (waiting.next().is_none() && *count as usize == unfinished).then_some(reason)
}

/// Returns true if an attempt of the device began. A device that is next in line, or refused
/// before a Pod is created, has a record too; an operator older than `startTime` recorded only the
/// Pod.
fn has_started_an_attempt(record: &DeviceStatus) -> bool {
    record.has_begun() || record.start_time.is_some() || record.pod.is_some()
}

fn unfinished(record: Option<&DeviceStatus>) -> &'static str {
    match record.map(|record| record.state) {
        Some(DeviceState::Verifying) => "verifying",
        Some(state) if state.is_in_flight() => "active",
        _ => "pending",
    }
}

/// Returns comma-separated values with headings. A cell that a spreadsheet would take for a
/// formula gets an apostrophe in front.
///
/// # Errors
/// The values cannot be written.
pub fn csv(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<String, Failure> {
    let lost = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Other, "OutputLost", format!("cannot write CSV: {error}"))
    };
    let harmless = |cell: String| match cell.starts_with(['=', '+', '-', '@']) {
        true => format!("'{cell}"),
        false => cell,
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(headings).map_err(|error| lost(&error))?;
    for row in rows {
        writer.write_record(row.into_iter().map(harmless)).map_err(|error| lost(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| lost(&error))?;
    String::from_utf8(bytes).map_err(|error| lost(&error))
}

fn junit(job: &FlashJob, rows: &[Row]) -> Result<String, Failure> {
    let name = format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any());
    let mut suite = TestSuite::new(name.clone());
    for row in rows {
        let detail = row.message.as_deref().or(row.reason.as_deref()).unwrap_or(row.result);
        let status = match row.result {
            "completed" => TestCaseStatus::success(),
            "failed" => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                // XML 1.0 (section 2.2) allows no control characters but tab and line ends, and
                // the message may quote a device.
                status.set_message(without_control_characters(detail));
                if let Some(reason) = &row.reason {
                    status.set_type(reason.clone());
                }
                status
            }
            // JUnit's error, not its failure: the report came too early, and the firmware is not
            // at fault.
            "pending" | "active" | "verifying" => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(format!("no result yet: {}", row.shown_result()));
                status
            }
            _ => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(without_control_characters(detail));
                status
            }
        };
        let mut case = TestCase::new(row.uid.clone(), status);
        case.set_classname(row.instance.clone().unwrap_or_else(|| name.clone()));
        if let Some(seconds) = row.seconds.map(u64::from) {
            case.set_time(std::time::Duration::from_secs(seconds));
        }
        suite.add_test_case(case);
    }
    let mut report = JunitReport::new("flashjob");
    report.add_test_suite(suite);
    report.to_string().map_err(|error| {
        Failure::new(Code::Other, "OutputLost", format!("cannot write JUnit's XML: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flashjob_api::{FlashJobSpec, ResultDetails};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn job() -> FlashJob {
        let details = |attempts, seconds, unverified| ResultDetails {
            from: Some("0.1.0".to_owned()),
            attempts,
            seconds,
            unverified,
            reported: unverified.then(|| "0.1.0".to_owned()),
        };
        let uuid = ["a", "b", "c"].map(str::to_owned).to_vec();
        let spec = FlashJobSpec { uuid, version: "0.2.0".to_owned(), ..FlashJobSpec::default() };
        let mut job = FlashJob::new("job", spec);
        job.status = Some(FlashJobStatus {
            completed_uuids: vec!["a".to_owned()],
            failed_uuids: vec!["b".to_owned()],
            results: BTreeMap::from([
                ("a".to_owned(), details(1, 41, true)),
                ("b".to_owned(), details(3, 42, false)),
            ]),
            devices: vec![DeviceStatus {
                uid: "b".to_owned(),
                state: DeviceState::Failed,
                reason: Some("PodFailed".to_owned()),
                message: Some("=HYPERLINK(\"<x>\")".to_owned()),
                baseline_version: Some("0.1.0".to_owned()),
                attempt: 3,
                ..DeviceStatus::default()
            }],
            ..FlashJobStatus::default()
        });
        job
    }

    #[test]
    fn each_device_has_its_result_and_what_the_status_keeps_of_it() {
        let rows = rows(&job(), &HashMap::from([("a", "akri-a")]));
        let cells: Vec<_> = rows.iter().map(|row| row.cells().join(",")).collect();
        assert_eq!(
            cells,
            [
                "a,akri-a,0.1.0,0.2.0,completed,,1,41,,true,0.1.0,false",
                "b,,0.1.0,0.2.0,failed,PodFailed,3,42,=HYPERLINK(\"<x>\"),false,,false",
                "c,,,0.2.0,pending,,,,,false,,false",
            ]
        );
    }

    #[test]
    fn a_device_that_was_removed_is_reported_while_it_may_still_be_flashed() {
        let mut job = job();
        let record = |uid: &str, state: DeviceState| DeviceStatus {
            uid: uid.to_owned(),
            state,
            attempt: 2,
            reason: (state == DeviceState::Lost).then(|| "PodLost".to_owned()),
            ..DeviceStatus::default()
        };
        let status = job.status.as_mut().expect("a status");
        status.devices.extend([
            record("lost", DeviceState::Lost),
            record("verifying", DeviceState::Verifying),
            // It never started.
            record("pending", DeviceState::Pending),
        ]);
        status.waiting.insert("PodLost".to_owned(), 1);
        let rows = rows(&job, &HashMap::new());
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.uid.as_str(), row.shown_result(), row.reason.as_deref()))
            .skip(2)
            .collect();
        assert_eq!(
            shown,
            [
                // The reason is that of another device.
                ("c", "pending".to_owned(), None),
                ("lost", "active, removed from spec.uuid".to_owned(), Some("PodLost")),
                ("verifying", "verifying, removed from spec.uuid".to_owned(), None),
            ]
        );
        assert_eq!(rows[3].attempts, Some(2));
        assert_eq!(rows[3].cells().last().map(String::as_str), Some("true"));
        let xml = junit(&job, &rows).expect("XML");
        assert!(xml.contains("no result yet: active, removed from spec.uuid"), "{xml}");
    }

    #[test]
    fn a_device_that_completed_without_proof_is_shown_with_the_version_that_it_reports() {
        let mut job = job();
        let first_result = |job: &FlashJob| rows(job, &HashMap::new())[0].shown_result();
        assert_eq!(first_result(&job), "completed, unverified: reports 0.1.0");
        let status = job.status.as_mut().expect("a status");
        status.results.get_mut("a").expect("details of a").reported = None;
        assert_eq!(first_result(&job), "completed, unverified");
        assert_eq!(rows(&job, &HashMap::new())[2].shown_result(), "pending");
    }

    #[test]
    fn a_device_that_no_attempt_began_for_has_no_attempts() {
        let attempts = |change: fn(&mut DeviceStatus)| {
            let mut job = job();
            let status = job.status.as_mut().expect("a status");
            status.results.clear();
            status.devices[0].attempt = 1;
            change(&mut status.devices[0]);
            rows(&job, &HashMap::new())[1].attempts
        };
        assert_eq!(attempts(|_| {}), None);
        let set_start_time = |record: &mut DeviceStatus| {
            record.start_time = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        };
        assert_eq!(attempts(set_start_time), Some(1));
        assert_eq!(attempts(|record| record.pod = Some("fj-a".to_owned())), Some(1));
    }

    #[test]
    fn the_reason_of_a_device_that_waits_is_shown_where_the_status_says_it() {
        let mut job = job();
        let reason = |job: &FlashJob| rows(job, &HashMap::new())[2].reason.clone();
        let status = job.status.as_mut().expect("a status");
        status.waiting.insert("UnknownDevice".to_owned(), 1);
        assert_eq!(reason(&job), Some("UnknownDevice".to_owned()));
        // Several reasons cannot be assigned to single devices.
        let status = job.status.as_mut().expect("a status");
        status.waiting.insert("DeviceBusy".to_owned(), 1);
        assert_eq!(reason(&job), None);
        let record = DeviceStatus {
            uid: "c".to_owned(),
            reason: Some("DeviceBusy".to_owned()),
            ..DeviceStatus::default()
        };
        job.status.as_mut().expect("a status").devices.push(record);
        assert_eq!(reason(&job), Some("DeviceBusy".to_owned()));
    }

    #[test]
    fn results_of_the_run_before_are_no_results_of_this_one() {
        let mut job = job();
        let firmware = |name: &str| FlashJobSpec { firmware: name.to_owned(), ..job.spec.clone() };
        let (before, after) = (firmware("a:1"), firmware("a:2"));
        let run = before.effective().ok().map(|spec| spec.run);
        job.status.as_mut().expect("a status").run = run;
        let results = |job: &FlashJob| {
            rows(job, &HashMap::new()).iter().map(|row| row.result).collect::<Vec<_>>()
        };
        job.spec = before;
        assert_eq!(results(&job), ["completed", "failed", "pending"]);
        job.spec = after;
        assert_eq!(results(&job), ["pending"; 3]);
    }

    #[test]
    fn what_a_device_says_is_no_formula_and_no_markup() {
        let rows = rows(&job(), &HashMap::new());
        let cells = rows.iter().map(|row| row.cells().to_vec());
        let text = csv(&["a"; 12], cells).expect("CSV");
        assert!(text.contains("\"'=HYPERLINK(\"\"<x>\"\")\""), "{text}");
        let text = junit(&job(), &rows).expect("XML");
        assert!(text.contains("&lt;x&gt;") && text.contains("failures=\"1\""), "{text}");
    }
}
