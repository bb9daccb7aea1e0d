//! Measures a FlashRollout beside FlashJobs of the same devices, and the cost of selecting,
//! planning and waiting. docs/performance.md explains each number.

mod fleet;
mod report;

use std::path::PathBuf;

use clap::value_parser;

use crate::job::{memory_of_instances, warm_up};
use crate::stage::Stage;
use fleet::{Bench, idle, jobs_in_turn, planned, rolled_out};
use report::Report;

/// Size of what is measured, and where it is written.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Devices that are flashed, in 12 batches; at most 10,000.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u64).range(20..=10_000))]
    devices: u64,
    /// Devices in flight at once.
    #[arg(long, default_value_t = 50)]
    parallelism: usize,
    /// Instances from which the devices are selected.
    #[arg(long, default_value_t = 100_000)]
    instances: usize,
    /// Seconds for which a rollout that waits for an approval is watched.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// FlashJobs and the rollout are run that many times, in turns.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Folder of the table, which is written as `rollout.md` and `rollout.json`.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// Leave the folder with the logs of all parts.
    #[arg(long)]
    keep: bool,
}

/// Measures everything, and prints the table.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut stage = Stage::start(settings.keep).await?;
    let report = measure(&mut stage, &settings).await.inspect_err(|_| stage.keep())?;
    println!("{}", report.markdown());
    eprintln!("written to {}", settings.output.display());
    Ok(())
}

async fn measure(stage: &mut Stage, settings: &Settings) -> anyhow::Result<Report> {
    let devices = usize::try_from(settings.devices)?;
    warm_up(stage).await?;
    let bench = Bench::new(devices, settings.parallelism);
    eprintln!("{devices} Instances");
    stage.instances(devices).await?;
    let mut report = Report::new(&bench);
    for round in 1..=settings.rounds {
        eprint!("{round}/{}: a FlashJob a batch ", settings.rounds);
        let jobs = jobs_in_turn(stage, &bench).await?;
        eprintln!("{:.1} devices/s", jobs.devices_per_second);
        eprint!("{round}/{}: a FlashRollout ", settings.rounds);
        let rollout = rolled_out(stage, &bench).await?;
        eprintln!("{:.1} devices/s", rollout.devices_per_second);
        report.rounds.push((jobs, rollout));
        report.write(&settings.output)?;
    }
    let extra_instances = settings.instances.saturating_sub(devices);
    eprintln!("{extra_instances} more Instances");
    report.memory = memory_of_instances(stage, extra_instances).await?;
    report.write(&settings.output)?;
    eprintln!("planning, and {} s of waiting", settings.idle_seconds);
    report.planning = Some(planned(stage, &bench).await?);
    report.idle = Some(idle(stage, &bench, settings.idle_seconds).await?);
    report.write(&settings.output)?;
    Ok(report)
}
