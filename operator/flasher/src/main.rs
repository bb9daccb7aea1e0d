//! `flashjob-flasher`: one attempt to flash one device. Its exit status and its termination
//! message give the result.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use flashjob_flasher::arguments::{Arguments, Command, Progress, variables};
use flashjob_flasher::outcome::{AttemptFailure, Code, Sent, conclude};
use flashjob_flasher::{Stage, http, ota, serial, smp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let started_at = Instant::now();
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => return unread(&error),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match arguments.progress {
        Progress::Text => log.with_target(false).init(),
        Progress::Json => log.json().flatten_event(true).init(),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(carry_out(&arguments));
            // Do not wait for a thread that waits for a device.
            runtime.shutdown_background();
            ended
        }
        Err(error) => {
            let failure = AttemptFailure::new(Code::BadConfiguration, "the program cannot start");
            Err(failure.because(error))
        }
    };
    ExitCode::from(conclude(&ended, started_at.elapsed(), &arguments.termination_log))
}

/// Handles a command line that is invalid or requests help. The termination message names the
/// variable that is at fault.
fn unread(error: &clap::Error) -> ExitCode {
    // Help and version are no failed attempt, so they write no termination message.
    if !error.use_stderr() {
        error.exit();
    }
    let log = termination_log();
    let mut words = error.render().to_string();
    let line: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    for (option, variable) in variables(error, line.iter().map(String::as_str)) {
        words += &format!("\n{option} can also be set with the environment variable {variable}");
    }
    let failure =
        AttemptFailure::new(Code::BadConfiguration, words.trim_start_matches("error: ").trim());
    eprintln!("{words}");
    let ended = Err(failure);
    ExitCode::from(conclude(&ended, std::time::Duration::ZERO, &log))
}

/// Returns the file for the termination message, even if other options are invalid: clap stops
/// parsing at the first error.
fn termination_log() -> PathBuf {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let option = words.iter().enumerate().find_map(|(index, word)| {
        let word = word.to_str()?;
        match word.strip_prefix("--termination-log")? {
            "" => words.get(index + 1).cloned(),
            value => value.strip_prefix('=').map(Into::into),
        }
    });
    let variable = || std::env::var_os("FLASHER_TERMINATION_LOG");
    let named = option.or_else(variable).filter(|file| !file.is_empty());
    named.map_or_else(|| "/dev/termination-log".into(), PathBuf::from)
}

async fn carry_out(arguments: &Arguments) -> Result<Sent, AttemptFailure> {
    // Two TLS providers may be linked in; this selects ring. A second call has no effect.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let unusable = |error: std::io::Error| {
        AttemptFailure::new(Code::BadConfiguration, "cannot install signal handlers")
            .because(error)
    };
    // As process 1 of a container the program ignores signals for which it has no handler.
    let mut terminated = signal(SignalKind::terminate()).map_err(unusable)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(unusable)?;
    let stage = watch::channel(Stage::Preparing).0;
    let mut flash = std::pin::pin!(async {
        match &arguments.command {
            Command::Ota(options) => ota::flash(options, &stage).await,
            Command::Http(options) => http::flash(options, &stage).await,
            Command::Smp(options) => smp::flash(options, &stage).await,
            Command::Serial(options) => serial::flash(options, &stage).await,
        }
    });
    tokio::select! {
        ended = &mut flash => return ended,
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    // Do not interrupt a transfer: the device could be left with half a firmware. Kubernetes
    // allows the grace period, and then kills this process.
    if Stage::end(&stage) {
        return Err(AttemptFailure::new(
            Code::Interrupted,
            "received a signal to end before the transfer began; the device was not changed",
        ));
    }
    if *stage.borrow() == Stage::Sending {
        tracing::info!("received a signal to end; finishing the transfer first");
    }
    tokio::select! {
        // A result that is ready is more precise than the interruption.
        biased;
        ended = &mut flash => ended,
        // The device continues by itself, and the next attempt reads the version that it runs.
        bytes = Stage::delivered(&stage) => {
            let message = "received a signal to end before the device had proven that it runs the \
                           firmware; it has received all of it";
            let failure = AttemptFailure::new(Code::Interrupted, message);
            Err(AttemptFailure { bytes: Some(bytes), ..failure })
        }
    }
}
