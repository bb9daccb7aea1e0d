//! The results as a table for people and as JSON for comparisons.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::audit::{Log, percentile};
use crate::case::{Case, Matrix, Runner};
use crate::usage::Usage;

/// Measurements of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Seconds from the first request to the last; for the operator from the FlashJob's creation
    /// to its Completed status.
    pub seconds: f64,
    /// Number of devices divided by these seconds.
    pub devices_per_second: f64,
    /// Requests by verb and resource.
    pub requests: BTreeMap<String, usize>,
    /// CPU time and memory that the process used.
    pub usage: Usage,
    /// Median of the time that a free place stayed idle, in milliseconds.
    pub idle_p50_ms: Option<f64>,
    /// 99th percentile of the same time.
    pub idle_p99_ms: Option<f64>,
}

impl Measured {
    /// Returns the measurements of a user's requests in the log of a case.
    pub fn new(case: &Case, log: &Log, user: &str, seconds: f64, usage: Usage) -> Self {
        let idle = log.idle_places(user, case.parallelism);
        Self {
            seconds,
            devices_per_second: case.devices as f64 / seconds,
            requests: log.counts(user),
            usage,
            idle_p50_ms: percentile(&idle, 0.5),
            idle_p99_ms: percentile(&idle, 0.99),
        }
    }
}

impl Measured {
    /// Returns the number of requests except those for the Lease, which depend on time and not on
    /// devices.
    fn requests_for_devices(&self) -> usize {
        self.requests
            .iter()
            .filter(|(what, _)| !what.ends_with(" leases"))
            .map(|(_, count)| count)
            .sum()
    }
}

/// Memory that an idle operator holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Resident {
    pub instances: usize,
    pub resident_kib: u64,
    pub peak_kib: u64,
}

/// All results so far.
#[derive(Serialize)]
pub struct Table {
    matrix: Matrix,
    cases: Vec<(Case, Measured)>,
    /// The operator's peak in KiB with the compilation of the plugin, which later starts find
    /// compiled.
    pub cold_start_peak: Option<u64>,
    /// Memory of idle operators.
    pub instances: Vec<Resident>,
}

impl Table {
    /// Returns an empty table.
    pub fn new(matrix: Matrix) -> Self {
        Self { matrix, cases: Vec::new(), cold_start_peak: None, instances: Vec::new() }
    }

    /// Adds a result.
    pub fn add(&mut self, case: &Case, measured: Measured) {
        self.cases.push((*case, measured));
    }

    /// Writes `<matrix>.md` and `<matrix>.json`.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(format!("{}.md", self.matrix)), self.markdown())?;
        std::fs::write(
            folder.join(format!("{}.json", self.matrix)),
            serde_json::to_vec_pretty(self)?,
        )?;
        Ok(())
    }

    /// Returns the devices per second as a multiple of the client's in the same case.
    fn ratio(&self, case: &Case, measured: &Measured) -> Option<f64> {
        let twin = Case { runner: Runner::Least, ..*case };
        let least = self.cases.iter().find(|(other, _)| *other == twin)?;
        (case.runner != Runner::Least)
            .then(|| measured.devices_per_second / least.1.devices_per_second)
    }

    /// Returns the table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| devices | Pod s | parallelism | who | devices/s | ratio | requests/device | \
             CPU s per 1,000 | peak MiB | idle place p50, p99 ms |\n\
             |--:|--:|--:|---|--:|--:|--:|--:|--:|--:|\n",
        );
        for (case, measured) in &self.cases {
            let devices = case.devices as f64;
            let ratio = self
                .ratio(case, measured)
                .map_or_else(|| "1".to_owned(), |ratio| format!("{ratio:.2}"));
            let idle = |value: Option<f64>| {
                value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0}"))
            };
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.1} | {ratio} | {:.2} | {:.2} | {:.1} | {}, {} |",
                case.devices,
                case.pod_ms as f64 / 1000.0,
                case.parallelism,
                case.runner.title(),
                measured.devices_per_second,
                measured.requests_for_devices() as f64 / devices,
                measured.usage.cpu_seconds * 1000.0 / devices,
                measured.usage.peak_kib as f64 / 1024.0,
                idle(measured.idle_p50_ms),
                idle(measured.idle_p99_ms),
            );
        }
        text + &self.requests() + &self.memory()
    }

    /// Formats the requests by verb and resource, in whole numbers.
    fn requests(&self) -> String {
        let mut text = String::from("\nRequests:\n\n");
        for (case, measured) in &self.cases {
            let _ = writeln!(text, "- {case}: {}", listed(&measured.requests));
        }
        text
    }

    fn memory(&self) -> String {
        let mut text = String::new();
        if let Some(peak) = self.cold_start_peak {
            let _ = writeln!(
                text,
                "\nPeak of an operator that compiles the plugin: {:.1} MiB.",
                peak as f64 / 1024.0
            );
        }
        text + &memory_of_instances(&self.instances)
    }
}

/// Formats requests by verb and resource, in one line.
pub fn listed(requests: &BTreeMap<String, usize>) -> String {
    let counts: Vec<String> =
        requests.iter().map(|(what, count)| format!("{what} {count}")).collect();
    counts.join(", ")
}

/// Formats the memory of idle operators, and the part of it that an Instance needs.
pub fn memory_of_instances(measured: &[Resident]) -> String {
    let mut text = String::new();
    for Resident { instances, resident_kib, peak_kib } in measured {
        let _ = writeln!(
            text,
            "\nIdle operator with {instances} Instances: {:.1} MiB resident, peak {:.1} MiB.",
            *resident_kib as f64 / 1024.0,
            *peak_kib as f64 / 1024.0
        );
    }
    if let [few, many] = measured {
        let bytes = |of: fn(&Resident) -> u64| {
            (of(many) as f64 - of(few) as f64) * 1024.0 / (many.instances - few.instances) as f64
        };
        let _ = writeln!(
            text,
            "\nPer Instance: {:.0} bytes resident, {:.0} at the peak.",
            bytes(|it| it.resident_kib),
            bytes(|it| it.peak_kib)
        );
    }
    text
}
