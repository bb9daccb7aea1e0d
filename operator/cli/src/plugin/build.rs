use crate::{failure::Failure, report::Report};
use clap::Args;
#[derive(Debug, Args)]
pub struct Build {}
pub(super) async fn run(_: &Build) -> Result<Report, Failure> {
    Err(Failure::usage("x"))
}
