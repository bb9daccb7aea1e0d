//! The program in the simulated flash Pod's image. Its environment says what to flash; see
//! `flashjob_simulators::flasher`.

use std::process::ExitCode;

use flashjob_simulators::flasher::{Environment, flash};
use flashjob_simulators::process;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    process::prepare();
    if std::env::args().any(|word| word == "--exit-with-stdin") {
        process::end_with_stdin();
    }
    let environment = Environment::of_process();
    let flashed = tokio::select! {
        flashed = flash(&environment) => flashed,
        _ = process::told_to_end() => Err(anyhow::anyhow!("told to end")),
    };
    let (message, code) = match flashed.and_then(|()| environment.working_directory()) {
        Ok(directory) => (format!("flashed, from {}", directory.display()), ExitCode::SUCCESS),
        Err(error) => (format!("{error:#}"), ExitCode::FAILURE),
    };
    eprintln!("{message}");
    let _ = std::fs::write(environment.path("/dev/termination-log"), message);
    code
}
