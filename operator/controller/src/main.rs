//! The program flashjob-operator.

use std::process::ExitCode;

use clap::Parser;
use flashjob_operator::arguments::Arguments;
use flashjob_operator::run::{RunError, run};
use flashjob_plugin_host::{COMPILE_PLUGIN, compile_plugin};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // To compile a plugin, the operator starts itself with this argument. The process sets its
    // limits before it has threads.
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

/// Runs the operator. One thread handles thousands of devices: its work is short, and it reuses
/// the memory that it frees. Plugins run on two threads of their own, as a call may use all of its
/// time; one thread per core of a large node would only cost memory.
fn operate(arguments: Arguments) -> Result<(), RunError> {
    let plugins = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("plugins")
        .enable_all()
        .build()
        .map_err(RunError::Threads)?;
    let rest = Builder::new_current_thread().enable_all().build().map_err(RunError::Threads)?;
    rest.block_on(run(arguments, plugins.handle()))
}
