//! Measures the operator beside a client that sends only the four requests that a device needs, on
//! one control plane in one run, and prints a table. docs/performance.md explains each column.
//! Nothing here fails because something was slow; a job that does not complete, or a device that
//! does not succeed, is a failure.

mod audit;
mod case;
mod flashers;
mod job;
mod least;
mod plugins;
mod rollout;
mod stage;
mod table;
mod usage;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use case::{Case, Matrix};
use stage::Stage;
use table::Table;

#[derive(Parser)]
#[command(about = "Measures the operator beside a client that does only what a device needs.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures a matrix of cases.
    Run {
        /// `quick` takes some minutes; `full` is everything and takes about two hours.
        #[arg(default_value = "quick")]
        matrix: Matrix,
        /// In place of the matrix's own numbers of devices.
        #[arg(long, value_delimiter = ',')]
        devices: Vec<usize>,
        /// In place of the matrix's own parallelisms.
        #[arg(long, value_delimiter = ',')]
        parallelism: Vec<usize>,
        /// In place of the matrix's own times of a Pod, in milliseconds.
        #[arg(long, value_delimiter = ',')]
        pod_ms: Vec<u64>,
        /// In place of `least,per-device,pooled`.
        #[arg(long, value_delimiter = ',')]
        runners: Vec<case::Runner>,
        /// After the matrix, this many more Instances are made, to see what one costs in memory.
        /// Default: 0; full: 20,000.
        #[arg(long)]
        more_instances: Option<usize>,
        /// Folder of the table, which is written as `<matrix>.md` and `<matrix>.json`.
        #[arg(long, default_value = "target/bench")]
        output: PathBuf,
        /// Leave the folder with the logs of all parts.
        #[arg(long)]
        keep: bool,
    },
    /// Measures plugins: a call, a start from a warm cache, the way from the registry, memory.
    /// Takes some minutes.
    Plugins(plugins::Settings),
    /// Measures flash programs: many at once, beside one that only sends; and the memory of one.
    Flashers(flashers::Settings),
    /// A program that sends a file to a device and does nothing else, as a process of its own.
    #[command(hide = true)]
    Send(flashers::send::Settings),
    /// Measures a FlashRollout beside FlashJobs of the same devices, and what selecting, planning
    /// and waiting cost.
    Rollout(rollout::Settings),
    /// Loads plugins from a warm cache, as a process of its own; says what that took.
    #[command(hide = true)]
    LoadPlugins,
    /// The client that does only what a device needs, as a process of its own; says what it used.
    #[command(hide = true)]
    Least(least::Settings),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Least(settings) => least::run(settings).await,
        Command::Plugins(settings) => plugins::run(settings).await,
        Command::Flashers(settings) => flashers::run(settings).await,
        Command::Send(settings) => flashers::send::run(&settings),
        Command::Rollout(settings) => rollout::run(settings).await,
        Command::LoadPlugins => plugins::start::load().await,
        Command::Run {
            matrix,
            devices,
            parallelism,
            pod_ms,
            runners,
            more_instances,
            output,
            keep,
        } => {
            let cases = case::cases(matrix, &devices, &parallelism, &pod_ms, &runners);
            let more = more_instances.unwrap_or(if matrix == Matrix::Full { 20_000 } else { 0 });
            measure(matrix, &cases, more, &output, keep).await
        }
    }
}

async fn measure(
    matrix: Matrix,
    cases: &[Case],
    more: usize,
    output: &std::path::Path,
    keep: bool,
) -> anyhow::Result<()> {
    eprintln!("{} cases of the {matrix} matrix", cases.len());
    let mut stage = Stage::start(keep).await?;
    let mut table = Table::new(matrix);
    table.cold_start_peak = Some(job::warm_up(&mut stage).await?);
    for (number, case) in cases.iter().enumerate() {
        eprint!("{}/{}: {case} ", number + 1, cases.len());
        let measured = match case.runner.exposure() {
            None => least::measure(&mut stage, case).await,
            Some(exposure) => job::measure(&mut stage, case, exposure).await,
        };
        let measured = measured.inspect_err(|_| stage.keep())?;
        eprintln!("{:.1} devices/s", measured.devices_per_second);
        table.add(case, measured);
        table.write(output)?;
    }
    if more > 0 {
        table.instances = job::memory_of_instances(&mut stage, more).await?;
        table.write(output)?;
    }
    println!("{}", table.markdown());
    eprintln!("written to {}", output.display());
    Ok(())
}
