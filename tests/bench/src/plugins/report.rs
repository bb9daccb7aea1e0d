//! The results as a table for people and as JSON for comparisons.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::calls::Calls;
use super::pull::Pulls;
use super::shelf::Kind;
use super::start::Starts;
use crate::audit::percentile;

/// Measurements of one plugin.
pub struct Row {
    pub kind: Kind,
    /// Size of the component, in bytes.
    pub component: usize,
    pub calls: Calls,
    pub pull: Pulls,
    pub start: Starts,
}

/// All plugins; the first is the baseline.
pub struct Report {
    pub rows: Vec<Row>,
}

/// A row in numbers.
#[derive(Serialize)]
struct Numbers {
    plugin: &'static str,
    component_bytes: usize,
    calls: usize,
    build_p50_us: f64,
    build_p99_us: f64,
    build_p50_ratio_to_empty: f64,
    call_memory_bytes: usize,
    pull_verified_p50_ms: f64,
    pull_started_p50_ms: f64,
    pull_ready_p50_ms: f64,
    pull_ready_most_ms: f64,
    ten_ready_p50_ms: f64,
    ten_ready_most_ms: f64,
    ten_loaded_p50_ms: f64,
    resident_kib_per_plugin: u64,
}

/// Returns the milliseconds below which this share of the sorted values lies; 0 if there are none.
fn at(sorted: &[Duration], share: f64) -> f64 {
    percentile(sorted, share).unwrap_or_default()
}

impl Report {
    /// Writes `plugins.md` and `plugins.json`.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("plugins.md"), self.markdown())?;
        std::fs::write(folder.join("plugins.json"), serde_json::to_vec_pretty(&self.numbers())?)?;
        Ok(())
    }

    fn numbers(&self) -> Vec<Numbers> {
        let empty = self.rows.first().map_or(0.0, |row| at(&row.calls.times, 0.5));
        let numbers =
            self.rows.iter().map(|Row { kind, component, calls, pull, start }| Numbers {
                plugin: kind.title(),
                component_bytes: *component,
                calls: calls.times.len(),
                build_p50_us: at(&calls.times, 0.5) * 1000.0,
                build_p99_us: at(&calls.times, 0.99) * 1000.0,
                build_p50_ratio_to_empty: at(&calls.times, 0.5) / empty,
                call_memory_bytes: calls.memory,
                pull_verified_p50_ms: at(&pull.verified, 0.5),
                pull_started_p50_ms: at(&pull.started, 0.5),
                pull_ready_p50_ms: at(&pull.ready, 0.5),
                pull_ready_most_ms: at(&pull.ready, 1.0),
                ten_ready_p50_ms: at(&start.ready, 0.5),
                ten_ready_most_ms: at(&start.ready, 1.0),
                ten_loaded_p50_ms: at(&start.loaded, 0.5),
                resident_kib_per_plugin: start.kib_per_plugin,
            });
        numbers.collect()
    }

    /// Returns the table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| plugin | component KiB | `build` p50, p99 µs | ratio | memory of a call MiB | \
             first pull to ready p50, most ms | of it fetch, compile | \
             ten from a warm cache p50, most ms | of it loading | MiB a plugin |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in self.numbers() {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "| {} | {:.0} | {:.0}, {:.0} | {:.2} | {:.1} | {:.0}, {:.0} | {:.0}, {:.0} | \
                 {:.0}, {:.0} | {:.0} | {:.2} |",
                row.plugin,
                row.component_bytes as f64 / 1024.0,
                row.build_p50_us,
                row.build_p99_us,
                row.build_p50_ratio_to_empty,
                row.call_memory_bytes as f64 / f64::from(1 << 20),
                row.pull_ready_p50_ms,
                row.pull_ready_most_ms,
                row.pull_verified_p50_ms,
                row.pull_started_p50_ms,
                row.ten_ready_p50_ms,
                row.ten_ready_most_ms,
                row.ten_loaded_p50_ms,
                row.resident_kib_per_plugin as f64 / 1024.0,
            );
        }
        text
    }
}
