//! Measures plugins in the operator's own plugin host: a call, a start with everything cached, a
//! pull from the registry, and memory. docs/performance.md explains each number.

mod calls;
mod pull;
mod report;
mod shelf;
pub mod start;

use std::path::PathBuf;

use report::{Report, Row};
use shelf::{Kind, Shelf};

/// Choice of measurements, and folder of the tables.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Calls of `build` of each plugin that are counted.
    #[arg(long, default_value_t = 2000)]
    calls: usize,
    /// Fresh processes for each language that load ten plugins from a warm cache.
    #[arg(long, default_value_t = 15)]
    starts: usize,
    /// Folder of the table, which is written as `plugins.md` and `plugins.json`.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

/// Measures everything, and prints the table.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut shelf = Shelf::fill().await?;
    eprintln!("pulls: {} plugins of each language, the first time", shelf::COPIES);
    let pulls = pull::measure(&shelf).await?;
    // Cached plugins need no registry.
    shelf.registry.stop().await?;
    eprintln!("calls: {} of each plugin", settings.calls);
    let calls = calls::measure(&shelf, settings.calls).await?;
    eprintln!("starts: {} of each language", settings.starts);
    let starts = start::measure(&shelf, settings.starts).await?;
    let rows = Kind::ALL.into_iter().zip(calls).zip(pulls).zip(starts);
    let rows = rows.map(|(((kind, calls), pull), start)| Row {
        kind,
        component: shelf.size(kind),
        calls,
        pull,
        start,
    });
    let report = Report { rows: rows.collect() };
    report.write(&settings.output)?;
    println!("{}", report.markdown());
    eprintln!("written to {}", settings.output.display());
    Ok(())
}
