//! `rollout preview`: which devices would be flashed, in which batch. The operator's own rules plan
//! them; a run that is planned already is shown as it is.

use std::path::PathBuf;

use clap::Args;
use flashjob_api::{EffectiveRollout, FlashRollout, LeftOut};
use flashjob_rules::rollout::members::{self, Planned};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::state::{is_of_this_run, status};
use super::view::left_out;
use crate::arguments::Output;
use crate::cluster::{Place, Scope};
use crate::failure::{Code, Failure};
use crate::fleet::inventory::{self, Device};
use crate::fleet::table::table;
use crate::fleet::workload::full_name;
use crate::fleet::{devices_shown, manifest};
use crate::report::Report;

/// Devices of a batch that are shown, unless all are asked for.
const SHOWN: usize = 10;
/// Stands for a run that has no name yet.
const NO_RUN: &str = "000000";

/// Show devices and batches.
#[derive(Debug, Args)]
pub struct Preview {
    /// Name of a FlashRollout.
    #[arg(value_name = "NAME", required_unless_present = "file", conflicts_with = "file")]
    name: Option<String>,
    /// A file with a FlashRollout, which need not be in the cluster; - is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    scope: Scope,
}

/// Batches with their devices.
struct Shown {
    batches: Vec<(String, Vec<String>)>,
    left_out: LeftOut,
    notes: Vec<String>,
}

/// Plans the run, or shows the one that is planned.
///
/// # Errors
/// The FlashRollout or the devices cannot be read, or the run cannot be planned.
pub async fn run(command: &Preview) -> Result<Report, Failure> {
    let mut place = command.scope.place().await?;
    let rollout = command.rollout(&mut place).await?;
    let devices = inventory::devices(&place.client, None).await;
    let mut notes = Vec::new();
    let devices = match devices {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            notes.push(format!(
                "You may not see devices of all namespaces: those of {} are looked at.",
                place.namespace
            ));
            inventory::devices(&place.client, Some(&place.namespace)).await
        }
        devices => devices,
    };
    let devices =
        devices.map_err(|error| crate::cluster::refused("list Akri's Instances", &error))?;
    let mut shown = shown(&rollout, &place.namespace, &devices)?;
    notes.append(&mut shown.notes);
    shown.notes = notes;
    Ok(report(&rollout, &place.namespace, &devices, &shown))
}

impl Preview {
    async fn rollout(&self, place: &mut Place) -> Result<FlashRollout, Failure> {
        let Some(file) = &self.file else {
            return place.read(self.name.as_deref().unwrap_or_default()).await;
        };
        let mut rollout: FlashRollout =
            manifest::decoded(file, manifest::one(file, "FlashRollout")?)?;
        if let Some(namespace) = rollout.namespace().filter(|_| !self.scope.names_namespace()) {
            place.namespace = namespace;
        }
        rollout.metadata.namespace = Some(place.namespace.clone());
        rollout.status = None;
        Ok(rollout)
    }
}

fn shown(rollout: &FlashRollout, namespace: &str, devices: &[Device]) -> Result<Shown, Failure> {
    let (name, status) = (full_name(rollout), status(rollout));
    let spec: EffectiveRollout = rollout
        .spec
        .effective()
        .map_err(|error| Failure::usage(format!("FlashRollout {name}: {error}")))?;
    if is_of_this_run(rollout) && !status.members.is_empty() {
        let names = status.batches.iter().map(|batch| batch.name.clone());
        let members = status.members.iter().map(|members| members.instances.clone());
        let run = status.run.unwrap_or_default();
        return Ok(Shown {
            batches: names.zip(members).collect(),
            left_out: status.left_out.unwrap_or_default(),
            notes: vec![format!("Run {run} is planned; its devices do not change any more.")],
        });
    }
    let known_run = status.run.filter(|_| status.fingerprint.as_ref() == Some(&spec.fingerprint));
    let run = known_run.as_deref().unwrap_or(NO_RUN);
    let selectable = devices.iter().map(Device::selectable);
    let Planned { batches, left_out, .. } = members::plan(&spec, run, namespace, selectable)
        .map_err(|fault| {
            let message =
                format!("FlashRollout {name}: {fault}; kubectl flashjob devices -o wide shows all");
            Failure::new(Code::Unavailable, fault.reason(), message)
        })?;
    let note = "The run has no name yet, and that decides which devices go first: batches without \
                a selector of their own will have as many devices, but others.";
    let notes = if known_run.is_some() { Vec::new() } else { vec![note.to_owned()] };
    Ok(Shown { batches, left_out, notes })
}

fn report(rollout: &FlashRollout, namespace: &str, devices: &[Device], shown: &Shown) -> Report {
    let text = |most: usize| {
        let planned = shown.batches.iter().map(|(_, members)| members.len()).sum();
        let mut lines = vec![format!(
            "FlashRollout {}: {} in {} batches",
            full_name(rollout),
            devices_shown(planned),
            shown.batches.len()
        )];
        lines.extend(left_out(&shown.left_out));
        lines.extend(shown.notes.iter().map(|note| format!("Note: {note}")));
        for (place, (batch, members)) in shown.batches.iter().enumerate() {
            let number = place + 1;
            lines.push(format!("\nBATCH {number} {batch}: {}", devices_shown(members.len())));
            let rows = members.iter().take(most);
            lines.push(rows_of(rows, namespace, devices));
            if members.len() > most {
                lines.push(format!("  … and {} more; -o wide shows all", members.len() - most));
            }
        }
        lines.join("\n")
    };
    let batches: Vec<Value> = shown
        .batches
        .iter()
        .map(|(batch, members)| json!({"name": batch, "instances": members}))
        .collect();
    let names = shown.batches.iter().flat_map(|(_, members)| members);
    let names: Vec<String> = names.map(|member| format!("instance.akri.sh/{member}")).collect();
    let json = json!({
        "namespace": rollout.namespace(), "name": rollout.name_any(), "batches": batches,
        "leftOut": shown.left_out, "notes": shown.notes,
    });
    Report::new(text(SHOWN), json)
        .with(Output::Wide, text(usize::MAX))
        .with(Output::Name, names.join("\n"))
}

/// Members as a table; a device that is away has its name alone.
fn rows_of<'a>(
    members: impl Iterator<Item = &'a String>,
    namespace: &str,
    devices: &[Device],
) -> String {
    let row = |member: &String| {
        let (namespace, name) = member.split_once('/').unwrap_or((namespace, member));
        let device =
            devices.iter().find(|device| device.namespace == namespace && device.name == name);
        let text = |of: fn(&Device) -> &Option<String>| {
            device.and_then(|device| of(device).clone()).unwrap_or_default()
        };
        [
            format!("  {member}"),
            text(|device| &device.kind),
            text(|device| &device.application),
            text(|device| &device.version),
            device.map(|device| device.nodes.join(",")).unwrap_or_default(),
        ]
    };
    table(["  INSTANCE", "TYPE", "APPLICATION", "VERSION", "NODES"], members.map(row))
}
