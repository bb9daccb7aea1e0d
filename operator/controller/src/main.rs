//! The operator.

use std::process::ExitCode;

use clap::Parser;
use flashjob_operator::arguments::Arguments;
use flashjob_operator::run::{RunError, run};
use flashjob_plugin_host::{COMPILE_PLUGIN, compile_plugin};

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // The operator starts itself so, to compile a plugin. Limits of a process are set before it has threads.
    if words.next().is_some_and(|word| word == COMPILE_PLUGIN) {
        return compile_plugin(words);
    }
    match operate(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flashjob-operator: {error}");
            ExitCode::FAILURE
        }
    }
}

// Two threads carry thousands of devices; one for each core of a large node would only cost memory.
#[tokio::main(worker_threads = 2)]
async fn operate(arguments: Arguments) -> Result<(), RunError> {
    run(arguments).await
}
