//! `kubectl flashjob`: for those who look after a fleet, for those who install the operator, and
//! for plugin authors. What the operator decides is asked of the operator's own code.
//!
//! - [`arguments`] is the command line. [`fleet`] has the commands for devices and FlashJobs,
//!   [`plugin`] those for plugin authors, [`check`] looks at an installation, [`completion`] is
//!   for shells.
//! - [`cluster`] is the way to the cluster that the kubeconfig names; [`duration`] reads and shows
//!   times, [`number`] reads numbers, and [`decode`] objects.
//! - [`source`] gets a component from a file or a registry, with [`docker_config`]'s credentials
//!   and the trust that is asked for.
//! - A command returns a [`report::Report`] to show, or a [`failure::Failure`] with its exit code;
//!   [`output`] has the forms in which they are shown, and [`cause`] words the causes of errors.
//!   [`interruption`] ends a command at a signal.

mod arguments;
mod cause;
mod check;
mod cluster;
mod completion;
mod decode;
mod docker_config;
mod duration;
mod failure;
mod fleet;
mod interruption;
mod number;
mod output;
mod plugin;
mod report;
mod source;
mod written;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use flashjob_api::FlashJob;
use flashjob_plugin_host::{COMPILE_PLUGIN, compile_plugin};
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, Command};
use failure::Failure;
use interruption::Interruption;
use output::Output;
use report::Report;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // It starts itself so, to compile a plugin. Limits of a process are set before it has threads.
    if words.next().is_some_and(|word| word == COMPILE_PLUGIN) {
        return compile_plugin(words);
    }
    // Two TLS providers could be linked; ring is the one that is meant. A second call changes
    // nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    if let [first, words @ ..] = words.as_slice()
        && first == completion::COMPLETE
    {
        println!("{}", completion::complete(arguments::command(), words));
        return ExitCode::SUCCESS;
    }
    let arguments = match arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => return unread(&error, arguments::asked_output(&words)),
    };
    let output = arguments.output;
    match carry_out(arguments) {
        Ok(report) => report.show(output),
        Err(failure) => failure.show(output),
    }
}

/// A command line that cannot be read, or that asks for help.
fn unread(error: &clap::Error, output: Output) -> ExitCode {
    if !error.use_stderr() || !matches!(output, Output::Json | Output::Yaml) {
        error.exit();
    }
    let words = error.render().to_string();
    Failure::usage(words.trim_start_matches("error: ").trim_end()).show(output)
}

#[tokio::main(worker_threads = 2)]
async fn carry_out(arguments: Arguments) -> Result<Report, Failure> {
    // What plugins log is for their author.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,flashjob_plugin_host=info,kube=off"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    log.without_time().with_target(false).init();
    // Before the command does anything: from then on it is never killed in the middle of a file.
    let interruption = Interruption::default();
    let interrupted = interruption.listen()?;
    // What is dropped here takes its unfinished files and its children along.
    tokio::select! {
        ended = run(arguments.command, arguments.output, &interruption) => ended,
        interrupted = interrupted => Err(interrupted),
    }
}

async fn run(
    command: Command,
    output: Output,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    use fleet::{change, devices, flash, preview, results, retry, rollout, status};
    match command {
        Command::Devices(command) => devices::run(&command).await,
        Command::Flash(command) => flash::run(&command, output, interruption).await,
        Command::Preview(command) => preview::run(&command).await,
        Command::Status(command) => status::run(&command, output, interruption).await,
        Command::Rollout { command } => rollout::run(command, output, interruption).await,
        Command::Pause(command) => change::pause::<FlashJob>(&command).await,
        Command::Resume(command) => change::resume::<FlashJob>(&command).await,
        Command::Cancel(command) => change::cancel(&command, interruption).await,
        Command::Retry(command) => retry::run(&command, interruption).await,
        Command::Report(command) => results::run(&command).await,
        Command::Check(command) => check::run(&command).await,
        Command::Plugin { command } => plugin::run(command).await,
        Command::Completion(command) => completion::run(&command, arguments::command()),
    }
}
