//! The results as text for people and as JSON for comparisons.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::fleet::{Bench, Flashed, Idle, Planning};
use crate::table::{Resident, listed, memory_of_instances};

/// All results so far.
#[derive(Serialize)]
pub struct Report {
    devices: usize,
    parallelism: usize,
    batches: usize,
    /// Measurements of each round: a FlashJob per batch, and a FlashRollout.
    pub rounds: Vec<(Flashed, Flashed)>,
    /// Memory of idle operators.
    pub memory: Vec<Resident>,
    pub planning: Option<Planning>,
    pub idle: Option<Idle>,
}

impl Report {
    /// Returns an empty report.
    pub fn new(bench: &Bench) -> Self {
        let &Bench { devices, parallelism, ref batches } = bench;
        let (rounds, memory) = (Vec::new(), Vec::new());
        let batches = batches.len();
        Self { devices, parallelism, batches, rounds, memory, planning: None, idle: None }
    }

    /// Writes `rollout.md` and `rollout.json`.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("rollout.md"), self.markdown())?;
        std::fs::write(folder.join("rollout.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Returns the report in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{} devices in {} batches, {} at once:\n\n\
             | who | devices/s | ratio | requests/device | CPU s per 1,000 | peak MiB |\n\
             |---|--:|--:|--:|--:|--:|\n",
            self.devices, self.batches, self.parallelism
        );
        for (jobs, rollout) in &self.rounds {
            let ratio = rollout.devices_per_second / jobs.devices_per_second;
            self.row(&mut text, "a FlashJob a batch", jobs, 1.0);
            self.row(&mut text, "FlashRollout", rollout, ratio);
        }
        text.push_str("\nRequests:\n\n");
        for (jobs, rollout) in &self.rounds {
            for (who, flashed) in [("FlashJobs", jobs), ("FlashRollout", rollout)] {
                let _ = writeln!(text, "- {who}: {}", listed(&flashed.requests));
            }
        }
        text += &memory_of_instances(&self.memory);
        if let Some(planning) = &self.planning {
            let _ = writeln!(
                text,
                "\n{} members selected from {} Instances and stored within {:.2} s, with {:.2} s \
                 of the operator's CPU time; peak {:.1} MiB; a status of {} KiB.",
                planning.members,
                planning.instances,
                planning.seconds,
                planning.cpu_seconds,
                planning.peak_kib as f64 / 1024.0,
                planning.status_bytes / 1024,
            );
        }
        if let Some(Idle { seconds, writes, cpu_seconds }) = &self.idle {
            let count: usize = writes.values().sum();
            let _ = writeln!(
                text,
                "\nWrites while it waited for {seconds} s: {count} {}, with {cpu_seconds:.2} s of \
                 CPU time.",
                listed(writes)
            );
        }
        text
    }

    fn row(&self, text: &mut String, who: &str, flashed: &Flashed, ratio: f64) {
        let devices = self.devices as f64;
        let requests = flashed.requests.iter().filter(|(what, _)| !what.ends_with(" leases"));
        let requests: usize = requests.map(|(_, count)| count).sum();
        let _ = writeln!(
            text,
            "| {who} | {:.1} | {ratio:.2} | {:.2} | {:.2} | {:.1} |",
            flashed.devices_per_second,
            requests as f64 / devices,
            flashed.usage.cpu_seconds * 1000.0 / devices,
            flashed.usage.peak_kib as f64 / 1024.0,
        );
    }
}
