//! Builds what the tests on a real node need before they run beside other tests, which a running
//! compiler would slow down. Where a real node cannot run, it does nothing and succeeds.

use std::process::ExitCode;

use flashjob_node::{images, requirements};

fn main() -> ExitCode {
    // The tests themselves report what is missing.
    if requirements::missing().is_some() {
        return ExitCode::SUCCESS;
    }
    match images::build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
