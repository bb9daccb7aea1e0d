//! The operator.

use std::process::ExitCode;

use clap::Parser;
use flashjob_operator::arguments::Arguments;
use flashjob_operator::run::run;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flashjob-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
