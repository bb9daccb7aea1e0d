//! `rollout preview`: shows the devices that would be flashed, and their batches. The operator's
//! own rules plan them; a run that is already planned is shown as it is.

use std::path::PathBuf;

use clap::Args;
use flashjob_api::{FlashRollout, LeftOut};
use flashjob_rules::count::counted;
use flashjob_rules::flashjob::policy::Namespaces;
use flashjob_rules::rollout::Rollout;
use flashjob_rules::rollout::members::{self, Planned};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::state::{is_of_this_run, status};
use super::view::left_out;
use crate::cluster::{Place, Scope, refused};
use crate::failure::{Code, Failure};
use crate::fleet::inventory::{self, Device};
use crate::fleet::manifest;
use crate::fleet::preview::operator_config::{self, Search};
use crate::fleet::preview::unreported;
use crate::fleet::table::table;
use crate::fleet::workload::full_name;
use crate::output::Output;
use crate::report::Report;
use crate::source;

/// Number of devices of a batch that are shown, unless all are requested.
const SHOWN: usize = 10;
/// Placeholder for a run that has no name yet.
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
    /// The operator's configuration, which says devices of which namespaces may be flashed.
    /// Default: the one in the cluster.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    scope: Scope,
}

/// Batches with their devices.
struct PlannedBatches {
    batches: Vec<(String, Vec<String>)>,
    left_out: LeftOut,
    notes: Vec<String>,
}

/// Plans the run, or shows the existing plan.
///
/// # Errors
/// The FlashRollout or the devices cannot be read, or the run cannot be planned.
pub async fn run(command: &Preview) -> Result<Report, Failure> {
    let mut place = command.scope.place().await?;
    let rollout = command.rollout(&mut place).await?;
    let (namespaces, notes) = command.namespaces(&place).await?;
    // The default needs only the right to list the Instances of one namespace.
    let only = (namespaces == Namespaces::default()).then_some(place.namespace.as_str());
    let devices = inventory::devices(&place.client, only).await;
    let mut devices = devices.map_err(|error| refused("list Akri's Instances", &error))?;
    devices.retain(|device| namespaces.allow(&place.namespace, &device.namespace));
    let mut planned_batches = match planned(&rollout) {
        Some(planned) => planned,
        None => plan(&rollout, &place.namespace, &devices, notes)?,
    };
    let members = planned_batches.batches.iter().flat_map(|(_, members)| members);
    let warning = unreported::of_rollout(&rollout, &place.namespace, members, &devices);
    planned_batches.notes.extend(warning);
    Ok(report(&rollout, &place.namespace, &devices, &planned_batches))
}

impl Preview {
    async fn rollout(&self, place: &mut Place) -> Result<FlashRollout, Failure> {
        let Some(file) = &self.file else {
            return place.read(self.name.as_deref().unwrap_or_default()).await;
        };
        let mut rollout: FlashRollout =
            manifest::decoded(file, manifest::one(file, "FlashRollout")?)?;
        let written = rollout.namespace();
        place.namespace =
            manifest::namespace(&self.scope, written.as_deref(), place.namespace.clone())?;
        rollout.metadata.namespace = Some(place.namespace.clone());
        // A file from `kubectl get` has the status of the run in the cluster, whose plan would be
        // shown instead of one for this spec.
        rollout.status = None;
        Ok(rollout)
    }

    /// Returns the namespaces whose devices the rollout may flash, and notes for the user.
    async fn namespaces(&self, place: &Place) -> Result<(Namespaces, Vec<String>), Failure> {
        if let Some(file) = &self.config {
            return Ok((source::read_config(file)?.instances.namespaces, Vec::new()));
        }
        let cause = match operator_config::find(&place.client).await? {
            Search::Found(config) => {
                return Ok((source::read_config(&config.file)?.instances.namespaces, Vec::new()));
            }
            Search::Denied(cause) | Search::Absent(cause) => cause,
        };
        let note = format!(
            "{cause} Only devices of namespace {} are considered, which is the default; with \
             --config, those that the operator's configuration allows.",
            place.namespace
        );
        Ok((Namespaces::default(), vec![note]))
    }
}

/// Returns the batches of a run that is already planned.
fn planned(rollout: &FlashRollout) -> Option<PlannedBatches> {
    let status = status(rollout);
    if !is_of_this_run(rollout) || status.members.is_empty() {
        return None;
    }
    let names = status.batches.iter().map(|batch| batch.name.clone());
    let members = status.members.iter().map(|members| members.instances.clone());
    let run = status.run.unwrap_or_default();
    Some(PlannedBatches {
        batches: names.zip(members).collect(),
        left_out: status.left_out.unwrap_or_default(),
        notes: vec![format!("Run {run} is planned; its devices no longer change.")],
    })
}

/// Returns the batches that a run would have now.
fn plan(
    rollout: &FlashRollout,
    namespace: &str,
    devices: &[Device],
    mut notes: Vec<String>,
) -> Result<PlannedBatches, Failure> {
    let name = full_name(rollout);
    // Windows are parsed too, so that a preview reports all errors.
    let spec = Rollout::of(rollout.clone()).spec;
    let spec = spec.map_err(|fault| Failure::usage(format!("FlashRollout {name}: {fault}")))?;
    let known_run = status(rollout).run.filter(|_| is_of_this_run(rollout));
    // The order of the devices follows from a hash of run and device, and only the operator names
    // a run.
    let run = known_run.as_deref().unwrap_or(NO_RUN);
    let selectable = devices.iter().map(Device::selectable);
    let Planned { batches, left_out, .. } = members::plan(&spec, run, namespace, selectable)
        .map_err(|fault| {
            let message = format!(
                "FlashRollout {name}: {fault}; kubectl flashjob devices -o wide shows all"
            );
            Failure::new(Code::Unavailable, fault.reason(), message)
        })?;
    if known_run.is_none() {
        let note = "The run has no name yet, and the name decides which devices go first: batches \
                    without their own selector will have the same number of devices, but not the \
                    same ones.";
        notes.push(note.to_owned());
    }
    Ok(PlannedBatches { batches, left_out, notes })
}

fn report(
    rollout: &FlashRollout,
    namespace: &str,
    devices: &[Device],
    planned_batches: &PlannedBatches,
) -> Report {
    let text = |most: usize| {
        let planned = planned_batches.batches.iter().map(|(_, members)| members.len()).sum();
        let mut lines = vec![format!(
            "FlashRollout {}: {} in {} batches",
            full_name(rollout),
            counted(planned, "device"),
            planned_batches.batches.len()
        )];
        lines.extend(left_out(&planned_batches.left_out));
        lines.extend(planned_batches.notes.iter().map(|note| format!("Note: {note}")));
        for (place, (batch, members)) in planned_batches.batches.iter().enumerate() {
            let number = place + 1;
            lines.push(format!("\nBATCH {number} {batch}: {}", counted(members.len(), "device")));
            let rows = members.iter().take(most);
            lines.push(rows_of(rows, namespace, devices));
            if members.len() > most {
                lines.push(format!("  … and {} more; -o wide shows all", members.len() - most));
            }
        }
        lines.join("\n")
    };
    let batches: Vec<Value> = planned_batches
        .batches
        .iter()
        .map(|(batch, members)| json!({"name": batch, "instances": members}))
        .collect();
    let names = planned_batches.batches.iter().flat_map(|(_, members)| members);
    let names: Vec<String> = names.map(|member| format!("instance.akri.sh/{member}")).collect();
    let json = json!({
        "namespace": rollout.namespace(), "name": rollout.name_any(), "batches": batches,
        "leftOut": planned_batches.left_out, "notes": planned_batches.notes,
    });
    Report::new(text(SHOWN), json)
        .with(Output::Wide, text(usize::MAX))
        .with(Output::Name, names.join("\n"))
}

/// Returns members as a table; a device that is missing has only its name.
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
