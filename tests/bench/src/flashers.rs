//! Measures the flash program's `ota`: many at once against simulated devices, beside a minimal
//! program with the same TLS library that only sends the same bytes to the same devices; and the
//! memory of one with large firmware. docs/performance.md explains each number.

mod place;
mod report;
mod round;
pub mod send;

use std::path::PathBuf;
use std::time::Duration;

use place::Place;
use report::{Load, Report};
use round::Sender;

/// Size of the firmware for the measurement of memory, in bytes.
const LARGE: usize = 16 << 20;
/// Milliseconds that its device waits before it reads, so that the peak of the program's memory is
/// measured.
const READS_AFTER_MS: u64 = 1000;

/// Choice of measurements, and folder of the tables.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Flash programs at once.
    #[arg(long, default_value_t = 50)]
    flashers: usize,
    /// Size of the firmware, in MiB.
    #[arg(long, default_value_t = 4)]
    firmware_mib: usize,
    /// Rounds of each program, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Folder of the table, which is written as `flashers.md` and `flashers.json`.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

/// Measures everything, and prints the table.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let before = Load::now();
    let place = Place::new(settings.flashers, settings.firmware_mib << 20).await?;
    let mut times = [Vec::new(), Vec::new()];
    for number in 0..settings.rounds.max(1) {
        for (index, sender) in Sender::ALL.into_iter().enumerate() {
            let took = round::measure(&place, sender).await?;
            eprintln!("round {}: {sender:?} {took:.2?}", number + 1);
            times[index].push(took);
        }
    }
    let large = Place::new(1, LARGE).await?;
    let memory = round::memory(&large, Duration::from_millis(READS_AFTER_MS)).await?;
    let report = Report::new(place.flashers(), place.bytes, times, memory, before);
    report.write(&settings.output)?;
    println!("{}", report.markdown());
    eprintln!("written to {}", settings.output.display());
    Ok(())
}
