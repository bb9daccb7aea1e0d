//! `kubectl flashjob`: for fleet operators, for administrators who install the operator, and for
//! plugin authors. Decisions of the operator are computed with the operator's own code.
//!
//! - [`arguments`] is the command line. [`fleet`] has the commands for devices and FlashJobs,
//!   [`plugin`] those for plugin authors, [`check`] checks an installation, [`completion`] is for
//!   shells.
//! - [`cluster`] connects to the cluster that the kubeconfig names; [`duration`] parses and
//!   formats times, [`number`] parses numbers, and [`decode`] decodes objects.
//! - [`source`] fetches a component from a file or a registry, with [`docker_config`]'s
//!   credentials and the required trust.
//! - A command returns a [`report::Report`] to show, or a [`failure::Failure`] with its exit code;
//!   [`output`] has the output formats, [`text`] makes text by others fit for a terminal, and
//!   [`cause`] words the causes of errors. [`interruption`] ends a command at a signal.

/// Writes a line to standard error. Unlike `eprintln!`, it does not panic if nobody reads it.
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod arguments;
mod cause;
mod check;
mod cluster;
mod completion;
mod decode;
mod docker_config;
mod duration;
mod failure;
#[cfg(test)]
mod fake_api;
mod fleet;
mod input;
mod interruption;
mod number;
mod output;
mod plugin;
mod report;
mod source;
mod text;
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
    // The program starts itself with this word to compile a plugin. Limits of a process are set
    // before it has threads.
    if words.next().is_some_and(|word| word == COMPILE_PLUGIN) {
        return compile_plugin(words);
    }
    // Two TLS providers could be linked; this chooses ring. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    if let [first, words @ ..] = words.as_slice()
        && first == completion::COMPLETE
    {
        // A shell that no longer waits for the answer does not need it.
        let answer = completion::complete(arguments::command(), words);
        let _ = report::write(&format!("{answer}\n"));
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

/// Prints the help, or the failure for an invalid command line.
fn unread(error: &clap::Error, output: Output) -> ExitCode {
    if !error.use_stderr() || !matches!(output, Output::Json | Output::Yaml) {
        error.exit();
    }
    let words = error.render().to_string();
    Failure::usage(words.trim_start_matches("error: ").trim_end()).show(output)
}

#[tokio::main(worker_threads = 2)]
async fn carry_out(arguments: Arguments) -> Result<Report, Failure> {
    // Log messages of plugins are shown: they are for the plugin's author.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,flashjob_plugin_host=info,kube=off"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    log.without_time().with_target(false).init();
    // Before the command starts: from here on, no signal kills it while it writes a file.
    let interruption = Interruption::default();
    let interrupted = interruption.listen()?;
    // Dropping the future of the command removes its unfinished files and ends its child
    // processes.
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
