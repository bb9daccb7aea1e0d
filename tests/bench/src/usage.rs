//! CPU time and memory of a process, as the kernel reports them. Reads /proc.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in seconds, in user and kernel mode.
    pub cpu_seconds: f64,
    /// Peak of its resident memory, in KiB.
    pub peak_kib: u64,
    /// Resident memory now, in KiB.
    pub resident_kib: u64,
}

impl Usage {
    /// Reads the usage of a process; `None` for this process.
    pub fn of(process: Option<u32>) -> anyhow::Result<Self> {
        let folder = process.map_or_else(|| "self".to_owned(), |process| process.to_string());
        let folder = Path::new("/proc").join(folder);
        let stat =
            std::fs::read_to_string(folder.join("stat")).context("the process has ended")?;
        // The program's name, in brackets, may hold anything; utime and stime are fields 14 and 15
        // of proc_pid_stat(5).
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |index: usize| {
            fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default()
        };
        let status = std::fs::read_to_string(folder.join("status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
                .unwrap_or_default()
        };
        let cpu_seconds =
            (ticks(11) + ticks(12)) as f64 / rustix::param::clock_ticks_per_second() as f64;
        Ok(Self { cpu_seconds, peak_kib: kib("VmHWM:"), resident_kib: kib("VmRSS:") })
    }
}
