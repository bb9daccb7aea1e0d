//! What the API server's audit log tells of the operator.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

/// Requests of the operator that its rights did not cover, each as `verb url`. An API server that has just started knows no rights yet:
/// what it forbids then, and allows later, counts as allowed.
///
/// # Errors
/// The log cannot be read.
pub fn forbidden(log: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(log)?;
    // The API server may be at its last line.
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_operator: Vec<Value> =
        entries.filter(|entry| entry["user"]["username"] == "operator").collect();
    // A quota answers 403, too; what rights are missing is decided before that.
    let decided = |entry: &Value, decision: &str| {
        entry["annotations"]["authorization.k8s.io/decision"] == decision
    };
    let right = |entry: &Value| {
        let object = &entry["objectRef"];
        ["apiGroup", "resource", "subresource", "namespace"]
            .map(|part| object[part].to_string())
            .join(" ")
            + &entry["verb"].to_string()
    };
    let allowed: HashSet<String> =
        of_operator.iter().filter(|entry| decided(entry, "allow")).map(right).collect();
    let missing = of_operator
        .iter()
        .filter(|entry| decided(entry, "forbid") && !allowed.contains(&right(entry)));
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    Ok(missing
        .map(|entry| format!("{} {}", text(&entry["verb"]), text(&entry["requestURI"])))
        .collect())
}
