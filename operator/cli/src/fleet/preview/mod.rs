//! `preview`: what the operator would create for a FlashJob. The operator's own rules decide, and
//! its own host asks the plugins; nothing is created.
//!
//! - [`subject`] reads the FlashJob, the Instances and other FlashJobs, from the cluster or from
//!   files; [`operator_config`] reads the operator's configuration.
//! - [`rehearsal`] runs the rules until they want nothing new; the load balancer is played.

pub mod operator_config;
mod rehearsal;
mod subject;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use flashjob_operator::config::{OperatorConfig, PluginConfig};
use flashjob_plugin_host::Plugin;
use serde_json::{Value, json};

use super::table::table;
use crate::cluster::Scope;
use crate::failure::{Code, Failure};
use crate::report::{Report, yaml};
use crate::source::{self, RegistryOptions, Source, TrustOptions};
use operator_config::Search;
use rehearsal::{Rehearsal, Verdict};

/// Show what would be created.
#[derive(Debug, Args)]
pub struct Preview {
    /// Name of a FlashJob of the cluster.
    #[arg(value_name = "NAME", conflicts_with = "file")]
    name: Option<String>,
    /// A FlashJob, in YAML or JSON; names that the API server's uid is part of are those of an
    /// example.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only the device of the FlashJob with this uid, or whose uid begins so; repeat it for
    /// several.
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    uid: Vec<String>,
    /// Akri's Instances, in YAML or JSON, as kubectl get instances.akri.sh -o yaml writes them.
    /// With --file and --plugin no cluster is asked.
    #[arg(long, value_name = "FILE")]
    instances: Option<PathBuf>,
    /// A plugin: a file, or a reference as in the operator's configuration; repeat it for several.
    /// Default: those of the operator's configuration.
    #[arg(long, value_name = "FILE|REFERENCE")]
    plugin: Vec<String>,
    /// The external address, which the load balancer gives.
    #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
    address: IpAddr,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    trust: TrustOptions,
    #[command(flatten)]
    scope: Scope,
}

pub async fn run(command: &Preview) -> Result<Report, Failure> {
    if command.name.is_none() && command.file.is_none() {
        return Err(Failure::usage(
            "name a FlashJob of the cluster, or a file that has one with -f (- for standard input)",
        ));
    }
    let offline = command.instances.is_some() && command.file.is_some();
    let place = if offline { None } else { Some(command.scope.place().await?) };
    let mut subject = subject::read(command, place.as_ref()).await?;
    let mut notes = subject.notes.clone();
    if subject.job.spec.firmware_policy.take().is_some() {
        notes.push(
            "spec.firmwarePolicy: the firmware's registry is not asked here; the operator begins \
             once the firmware is proven, and passes on its digest unless pin is None"
                .to_owned(),
        );
    }
    // What the operator reads from its folder is there for as long as this lives.
    let search = match (&command.registry.config, &place) {
        (None, Some(place)) if command.plugin.is_empty() => {
            Some(operator_config::find(&place.client).await?)
        }
        _ => None,
    };
    let mut registry = command.registry.clone();
    match &search {
        Some(Search::Found(found)) => registry.config = Some(found.file.clone()),
        Some(Search::Denied(cause) | Search::Absent(cause)) => notes.push(cause.clone()),
        None => {}
    }
    let config = registry.config.as_deref().map(source::read_config).transpose()?;
    if config.is_none() {
        notes.push(
            "The operator's configuration is not known, so nothing is granted to plugins: --config"
                .to_owned(),
        );
    }
    let config = config.unwrap_or_default();
    let plugins = plugins(command, &registry, &config, &mut notes).await?;
    if plugins.is_empty() {
        let is_configured = command.registry.config.is_some();
        return Err(no_plugin(search.as_ref(), is_configured));
    }
    let rehearsal = Rehearsal::new(&subject, &config, &plugins, command.address)?;
    let shown = rehearsal.run().await?;
    let objects: Vec<&Value> = shown.objects.iter().collect();
    let mut text = verdicts(&shown.verdicts);
    for note in &notes {
        text.push_str(&format!("\nNote: {note}"));
    }
    for object in &objects {
        text.push_str(&format!("\n---\n{}", yaml(object)?.trim_end()));
    }
    let begins = shown.verdicts.iter().any(|verdict| verdict.verdict == "flash");
    let not_flashed =
        |verdict: &&Verdict| verdict.verdict == "fail" || !begins && verdict.verdict == "wait";
    let failed = shown.verdicts.iter().filter(not_flashed).count();
    let failure = (failed > 0).then(|| {
        let message = format!("not to be flashed: {}", super::devices_shown(failed));
        Failure::new(Code::Failing, "NotFlashed", message)
    });
    let json = json!({"devices": shown.verdicts, "objects": objects, "notes": notes});
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

/// Name and the first digits of the digest: enough to tell two apart.
fn short(plugin: &str) -> String {
    let (name, digest) = plugin.split_once("@sha256:").unwrap_or((plugin, ""));
    let digits: String = digest.chars().take(12).collect();
    format!("{name}@sha256:{digits}")
}

/// A plugin, with its entry in the operator's configuration.
pub struct Served {
    /// Its entry; one made up where it has none.
    config: PluginConfig,
    /// Plugin that can be asked; else the cause.
    plugin: Result<Plugin, String>,
    /// Gone with it: the folder in which it is compiled.
    _source: Option<Source>,
}

async fn plugins(
    command: &Preview,
    registry: &RegistryOptions,
    config: &OperatorConfig,
    notes: &mut Vec<String>,
) -> Result<Vec<Served>, Failure> {
    let mut served = Vec::new();
    for named in &command.plugin {
        let source = Source::new(named, registry, &command.trust).await?;
        let plugin = source.start(&source.verify().await?).await?;
        let name = plugin.info().name.clone();
        let entry = config.plugins.iter().find(|entry| entry.name == name).cloned();
        let config = match entry {
            Some(entry) => entry,
            None => made_up(&name, named)?,
        };
        served.push(Served { config, plugin: Ok(plugin), _source: Some(source) });
    }
    if !served.is_empty() {
        return Ok(served);
    }
    for entry in &config.plugins {
        let loaded = async {
            let source = Source::of(entry.image.clone(), registry, &command.trust).await?;
            let plugin = source.start(&source.verify().await?).await?;
            Ok::<_, Failure>((source, plugin))
        };
        served.push(match loaded.await {
            Ok((source, plugin)) => {
                Served { config: entry.clone(), plugin: Ok(plugin), _source: Some(source) }
            }
            Err(failure) => {
                notes.push(format!("plugin {} cannot be loaded: {}", entry.name, failure.message));
                Served { config: entry.clone(), plugin: Err(failure.message), _source: None }
            }
        });
    }
    Ok(served)
}

/// Nobody can be asked, and why.
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

/// The entry of a plugin that the configuration does not have: nothing is granted to it.
fn made_up(name: &str, named: &str) -> Result<PluginConfig, Failure> {
    let image = source::reference(named)?.to_string();
    let entry = json!({"name": name, "image": image, "allowUnsigned": true});
    serde_json::from_value(entry)
        .map_err(|error| Failure::usage(format!("{named} cannot be a plugin: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_no_plugin_is_known_is_said_and_missing_rights_are_no_mistake_of_the_command_line() {
        let denied =
            no_plugin(Some(&Search::Denied("You may not see it: forbidden".to_owned())), false);
        assert_eq!((denied.code, denied.reason), (Code::Unavailable, "AccessDenied"));
        assert!(denied.message.contains("You may not see it: forbidden; name one with --plugin"));
        let absent = no_plugin(Some(&Search::Absent("No Deployment is found.".to_owned())), false);
        assert_eq!(absent.code, Code::Usage);
        assert!(absent.message.contains("No Deployment is found; name"), "{}", absent.message);
    }
}
