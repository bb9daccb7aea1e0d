//! `check`: reports what is missing for devices to be flashed, and what to do next. Reads the
//! cluster, and changes nothing: [`read`] reads the facts, [`judge`] derives findings from them.

mod finding;
mod judge;
mod read;

pub use read::of_operator;

use clap::Args;
use serde_json::json;

use crate::cluster::{ClusterOptions, namespace};
use crate::failure::{Code, Failure};
use crate::report::Report;
use finding::{Finding, Status};

/// Check an installation.
#[derive(Debug, Args)]
pub struct Check {
    /// Namespace of the operator. Default: it is looked for in all.
    #[arg(short, long, value_name = "NAME", value_parser = namespace)]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(crate) async fn run(command: &Check) -> Result<Report, Failure> {
    let client = command.cluster.client().await?;
    let facts = read::facts(&client, command.namespace.as_deref()).await?;
    let findings = judge::findings(&facts);
    let failure = failure(&findings);
    Ok(Report::new(table(&findings), json!({"checks": findings})).failing(failure))
}

/// Returns the failure of the checks: parts that failed, else parts that could not be read and so
/// may be faulty.
fn failure(findings: &[Finding]) -> Option<Failure> {
    let named = |status| {
        let with = findings.iter().filter(|finding| finding.status == status);
        with.map(|finding| finding.check.as_str()).collect::<Vec<_>>().join(", ")
    };
    match (named(Status::Failed), named(Status::Denied)) {
        (failed, _) if !failed.is_empty() => {
            let message = format!("checks failed: {failed}");
            Some(Failure::new(Code::Failing, "CheckFailed", message))
        }
        (_, denied) if !denied.is_empty() => {
            let message = format!("could not be checked, permission denied: {denied}");
            Some(Failure::new(Code::Unavailable, "AccessDenied", message))
        }
        _ => None,
    }
}

fn table(findings: &[Finding]) -> String {
    let widest = findings.iter().map(|finding| finding.check.chars().count()).max();
    let width = widest.unwrap_or_default() + 2;
    let mut text = format!("STATUS   {:width$}MESSAGE\n", "CHECK");
    for Finding { check, status, message, next } in findings {
        let status = match status {
            Status::Ok => "ok",
            Status::Unknown => "unknown",
            Status::Denied => "denied",
            Status::Warning => "warning",
            Status::Failed => "FAILED",
        };
        text.push_str(&format!("{status:9}{check:width$}{message}\n"));
        if let Some(next) = next {
            text.push_str(&format!("{:9}{:width$}next: {next}\n", "", ""));
        }
    }
    text
}
