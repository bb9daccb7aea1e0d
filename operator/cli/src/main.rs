//! `kubectl flashjob`: what plugin authors need, done by the operator's own code, so that what passes here passes there; and what whoever
//! installs the operator asks first.
//!
//! - [`arguments`] is the command line, [`plugin`] has one module for each command for authors, [`check`] looks at an installation.
//! - [`cluster`] is the way to the cluster that the kubeconfig names.
//! - [`source`] gets a component from a file or a registry, with [`docker_config`]'s credentials and the trust that is asked for.
//! - A command returns a [`report::Report`] to show, or a [`failure::Failure`] with its exit code.

mod arguments;
mod check;
mod cluster;
mod docker_config;
mod failure;
mod plugin;
mod report;
mod source;
mod written;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::Parser;
use flashjob_plugin_host::{COMPILE_PLUGIN, compile_plugin};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, Command};
use failure::{Code, Failure};
use report::Report;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // It starts itself so, to compile a plugin. Limits of a process are set before it has threads.
    if words.next().is_some_and(|word| word == COMPILE_PLUGIN) {
        return compile_plugin(words);
    }
    let arguments = Arguments::parse();
    let output = arguments.output;
    match carry_out(arguments) {
        Ok(report) => report.show(output),
        Err(failure) => failure.show(output),
    }
}

#[tokio::main(worker_threads = 2)]
async fn carry_out(arguments: Arguments) -> Result<Report, Failure> {
    // Two TLS providers could be linked; ring is the one that is meant. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // What plugins log is for their author.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,flashjob_plugin_host=info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    log.without_time().with_target(false).init();
    // Before the command does anything: from then on it is never killed in the middle of a file.
    let interrupted = interrupted()?;
    // What is dropped here takes its unfinished files and its children along.
    tokio::select! {
        ended = run(arguments.command) => ended,
        interrupted = interrupted => Err(interrupted),
    }
}

async fn run(command: Command) -> Result<Report, Failure> {
    match command {
        Command::Check(command) => check::run(&command).await,
        Command::Plugin { command } => plugin::run(command).await,
    }
}

/// Listens to signals from now on; the answer ends at the first.
fn interrupted() -> Result<impl Future<Output = Failure>, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(Code::Other, "Signals", format!("cannot listen to signals: {error}"))
        })
    };
    let (mut interrupt, mut terminate) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Failure::new(Code::Interrupted, "Interrupted", "interrupted; nothing was left half written")
    })
}
