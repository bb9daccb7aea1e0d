//! `preview`: shows what the operator would create for a FlashJob. The operator's own rules
//! decide, and its own host runs the plugins; nothing is created.
//!
//! - [`subject`] reads the FlashJob, the Instances and other FlashJobs, from the cluster or from
//!   files; [`operator_config`] reads the operator's configuration, and [`served`] loads
//!   the plugins.
//! - [`rehearsal`] runs the rules until nothing changes; the load balancer is simulated.
//! - [`unreported`] warns of devices that report no version.

pub mod operator_config;
mod options;
mod rehearsal;
mod served;
mod subject;
pub mod unreported;

use serde_json::{Value, json};

use super::table::table;
use crate::failure::{Code, Failure};
use crate::report::{Report, yaml};
use crate::source;
use flashjob_rules::count::counted;
use operator_config::Search;
pub use options::Preview;
use rehearsal::{Rehearsal, Verdict};
use served::plugins;

pub async fn run(command: &Preview) -> Result<Report, Failure> {
    if command.name.is_none() && command.file.is_none() {
        return Err(Failure::usage(
            "name a FlashJob of the cluster, or a file that has one with -f (- for standard \
             input)",
        ));
    }
    let offline = command.instances.is_some() && command.file.is_some();
    let place = if offline { None } else { Some(command.scope.place().await?) };
    let mut subject = subject::read(command, place.as_ref()).await?;
    let mut notes = subject.notes.clone();
    // No device starts before the registry has answered, and here nobody asks it.
    if subject.job.spec.firmware_policy.take().is_some() {
        notes.push(
            "spec.firmwarePolicy: the preview does not query the firmware's registry; the \
             operator starts once the firmware is verified, and passes on its digest unless pin \
             is None"
                .to_owned(),
        );
    }
    // `search` owns copies of the operator's files, which are deleted when it is dropped.
    let search = match (&command.registry.config, &place) {
        (None, Some(place)) if command.plugin.is_empty() => {
            Some(operator_config::find(&place.client).await?)
        }
        _ => None,
    };
    let mut registry = command.registry.clone();
    match &search {
        Some(Search::Found(config)) => registry.config = Some(config.file.clone()),
        Some(Search::Denied(cause) | Search::Absent(cause)) => notes.push(cause.clone()),
        None => {}
    }
    let config = registry.config.as_deref().map(source::read_config).transpose()?;
    if config.is_none() {
        notes.push(
            "The operator's configuration is not known, so nothing is granted to plugins; name it \
             with --config"
                .to_owned(),
        );
    }
    let config = config.unwrap_or_default();
    let plugins = plugins(command, &registry, &config, &mut notes).await?;
    if plugins.is_empty() {
        let is_configured = command.registry.config.is_some();
        return Err(no_plugin(search.as_ref(), is_configured));
    }
    notes.extend(unreported::of_job(&subject.job, &subject.instances));
    let rehearsal = Rehearsal::new(&subject, &config, &plugins, command.address)?;
    let result = rehearsal.run().await?;
    let objects: Vec<&Value> = result.objects.iter().collect();
    let mut text = verdicts(&result.verdicts);
    for note in &notes {
        text.push_str(&format!("\nNote: {note}"));
    }
    for object in &objects {
        text.push_str(&format!("\n---\n{}", yaml(object)?.trim_end()));
    }
    let begins = result.verdicts.iter().any(|verdict| verdict.verdict == "flash");
    let not_flashed =
        |verdict: &&Verdict| verdict.verdict == "fail" || !begins && verdict.verdict == "wait";
    let failed = result.verdicts.iter().filter(not_flashed).count();
    let failure = (failed > 0).then(|| {
        let message = format!("not to be flashed: {}", counted(failed, "device"));
        Failure::new(Code::Failing, "NotFlashed", message)
    });
    let json = json!({"devices": result.verdicts, "objects": objects, "notes": notes});
    Ok(Report::new(text, json).failing(failure))
}

fn verdicts(verdicts: &[Verdict]) -> String {
    let row = |verdict: &Verdict| {
        [
            verdict.uid.clone(),
            verdict.instance.clone().unwrap_or_default(),
            verdict.verdict.to_owned(),
            verdict.plugin.as_deref().map(short).unwrap_or_default(),
            verdict.reason.clone().unwrap_or_default(),
            verdict.message.clone().unwrap_or_default(),
        ]
    };
    let headings = ["UID", "INSTANCE", "VERDICT", "PLUGIN", "REASON", "MESSAGE"];
    table(headings, verdicts.iter().map(row))
}

/// Returns the name and the first digits of the digest, enough to tell two plugins apart.
fn short(plugin: &str) -> String {
    let (name, digest) = plugin.split_once("@sha256:").unwrap_or((plugin, ""));
    let digits: String = digest.chars().take(12).collect();
    format!("{name}@sha256:{digits}")
}

/// Returns the failure for a preview without any plugin, with the cause.
fn no_plugin(search: Option<&Search>, is_configured: bool) -> Failure {
    let message = |cause: &str| {
        format!(
            "no plugin is known: {}; name one with --plugin, or the operator's configuration with \
             --config",
            cause.trim_end_matches('.')
        )
    };
    match search {
        Some(Search::Denied(cause)) => {
            Failure::new(Code::Unavailable, "AccessDenied", message(cause))
        }
        Some(Search::Absent(cause)) => Failure::usage(message(cause)),
        None if !is_configured => Failure::usage(message("none is named")),
        _ => Failure::usage(message("the operator's configuration has none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_no_plugin_is_known_is_said_and_missing_rights_are_no_mistake_of_the_command_line() {
        let denied = no_plugin(
            Some(&Search::Denied("No permission to see it: forbidden".to_owned())),
            false,
        );
        assert_eq!((denied.code, denied.reason), (Code::Unavailable, "AccessDenied"));
        assert!(
            denied.message.contains("No permission to see it: forbidden; name one with --plugin")
        );
        let absent = no_plugin(Some(&Search::Absent("No Deployment is found.".to_owned())), false);
        assert_eq!(absent.code, Code::Usage);
        assert!(absent.message.contains("No Deployment is found; name"), "{}", absent.message);
    }
}
