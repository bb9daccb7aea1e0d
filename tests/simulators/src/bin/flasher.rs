//! The program in the simulated flash Pod's image. Its environment says what to flash; see `flashjob_simulators::flasher`.

use std::path::Path;
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
    let Err(error) = flashed else { return ExitCode::SUCCESS };
    let message = format!("{error:#}");
    eprintln!("{message}");
    let root = std::env::var("SIMULATED_ROOT").unwrap_or_else(|_| "/".to_owned());
    let _ = std::fs::write(Path::new(&root).join("dev/termination-log"), message);
    ExitCode::FAILURE
}
