//! The results as a table for people and as JSON for comparisons.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

/// Minimum ratio to reach.
const RATIO: f64 = 0.8;
/// Maximum memory to stay below, in MiB.
const MEMORY_MIB: f64 = 32.0;
const MIB: f64 = (1 << 20) as f64;

/// Number of processors, and load of the machine at the beginning.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    processors: usize,
    /// Average number of runnable processes in the last minute.
    average: f64,
}

impl Load {
    /// Reads the load, as far as the kernel provides it.
    pub fn now() -> Self {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let average = text.split(' ').next().and_then(|word| word.parse().ok());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { processors, average: average.unwrap_or_default() }
    }
}

/// Measurements.
#[derive(Serialize)]
pub struct Report {
    flashers: usize,
    firmware_bytes: usize,
    rounds: usize,
    least_mib_per_second: f64,
    flasher_mib_per_second: f64,
    /// Median of the ratios of the rounds; each round compares with its own minimal one.
    ratio: f64,
    ratio_least: f64,
    ratio_most: f64,
    peak_mib: f64,
    load: Load,
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Report {
    /// Returns the report for the times of the minimal program and the flash program, round by
    /// round.
    pub fn new(
        flashers: usize,
        firmware_bytes: usize,
        times: [Vec<Duration>; 2],
        peak_kib: u64,
        load: Load,
    ) -> Self {
        let mib = flashers as f64 * firmware_bytes as f64 / MIB;
        let [least, flasher] = times.map(|times| -> Vec<f64> {
            times.into_iter().map(|time| mib / time.as_secs_f64()).collect()
        });
        let ratios: Vec<f64> =
            flasher.iter().zip(&least).map(|(flasher, least)| flasher / least).collect();
        Self {
            flashers,
            firmware_bytes,
            rounds: ratios.len(),
            ratio_least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratio_most: ratios.iter().copied().fold(0.0, f64::max),
            ratio: middle(ratios),
            least_mib_per_second: middle(least),
            flasher_mib_per_second: middle(flasher),
            peak_mib: peak_kib as f64 / 1024.0,
            load,
        }
    }

    /// Writes `flashers.md` and `flashers.json`.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("flashers.md"), self.markdown())?;
        std::fs::write(folder.join("flashers.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// Returns the table in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| flash programs at once | MiB each | only sending MiB/s | flash program MiB/s | \
             ratio, least, most | aim | peak MiB with 16 MiB | aim |\n\
             |--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | {:.2}, {:.2}, {:.2} | {RATIO} | {:.1} | {MEMORY_MIB} \
             |",
            self.flashers,
            self.firmware_bytes as f64 / MIB,
            self.least_mib_per_second,
            self.flasher_mib_per_second,
            self.ratio,
            self.ratio_least,
            self.ratio_most,
            self.peak_mib,
        );
        let Load { processors, average } = self.load;
        let _ = writeln!(
            text,
            "\nMedians of {} rounds of each, in turns, on {processors} processors; load average \
             at the start {average:.1}.",
            self.rounds
        );
        if average > 0.5 {
            text.push_str("The machine was busy: only the ratio may be compared.\n");
        }
        text
    }
}
