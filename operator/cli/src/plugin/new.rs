use crate::{failure::Failure, report::Report};
use clap::Args;
#[derive(Debug, Args)]
pub struct New {}
pub(super) fn run(_: &New) -> Result<Report, Failure> {
    Err(Failure::usage("x"))
}
