//! A fresh process that loads plugins from a warm cache: the time until all can answer, and the
//! memory that each needs.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use flashjob_plugin_host::Logins;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::shelf::{COPIES, Kind, Setup, Shelf};
use crate::usage::Usage;

/// Measurements of the starts of one language.
#[derive(Clone, Debug, Default)]
pub struct Starts {
    /// From the start of the process until ten plugins could answer, sorted.
    pub ready: Vec<Duration>,
    /// The part of it after a host without plugins exists, sorted.
    pub loaded: Vec<Duration>,
    /// Resident memory that each plugin after the first adds, in KiB.
    pub kib_per_plugin: u64,
}

/// Output of such a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ProcessOutput {
    loaded: Duration,
    resident_kib: u64,
}

/// Starts this many processes for each language, in turns.
pub async fn measure(shelf: &Shelf, starts: usize) -> anyhow::Result<Vec<Starts>> {
    let mut measured = vec![Starts::default(); Kind::ALL.len()];
    let mut resident = vec![(Vec::new(), Vec::new()); Kind::ALL.len()];
    for _ in 0..starts.max(1) {
        for kind in Kind::ALL {
            let index = kind as usize;
            let (_, output) = start(&shelf.setup(kind, 1)).await?;
            resident[index].0.push(output.resident_kib);
            let (ready, output) = start(&shelf.setup(kind, COPIES)).await?;
            resident[index].1.push(output.resident_kib);
            measured[index].ready.push(ready);
            measured[index].loaded.push(output.loaded);
        }
    }
    for (starts, (one, ten)) in measured.iter_mut().zip(resident) {
        starts.ready.sort();
        starts.loaded.sort();
        starts.kib_per_plugin = middle(ten).saturating_sub(middle(one)) / (COPIES as u64 - 1);
    }
    Ok(measured)
}

fn middle(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn start(setup: &Setup) -> anyhow::Result<(Duration, ProcessOutput)> {
    let setup = serde_json::to_vec(setup)?;
    let mut command = Command::new(std::env::current_exe()?);
    // As in deploy/manager.
    command
        .arg("load-plugins")
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let since = Instant::now();
    let mut child = command.spawn()?;
    let (mut input, output) =
        (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
    input.write_all(&setup).await?;
    drop(input);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).await?;
    let ready = since.elapsed();
    let status = child.wait().await?;
    anyhow::ensure!(status.success(), "a process that loads plugins ended with {status}");
    Ok((ready, serde_json::from_str(&line)?))
}

/// Runs the process: reads its [`Setup`] from standard input, loads all plugins at once as the
/// operator does, and prints the time and memory that it took.
pub async fn load() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text)?;
    let setup: Setup = serde_json::from_str(&text)?;
    let host = setup.host()?;
    let since = Instant::now();
    let loads: Vec<_> = setup
        .sources()
        .map(|source| {
            let host = host.clone();
            tokio::spawn(async move { host.load(&source, &Logins::none()).await })
        })
        .collect();
    let mut plugins = Vec::new();
    for load in loads {
        plugins.push(load.await??);
    }
    let output =
        ProcessOutput { loaded: since.elapsed(), resident_kib: Usage::of(None)?.resident_kib };
    println!("{}", serde_json::to_string(&output)?);
    Ok(())
}
