//! `rollout create`: a FlashRollout from options, from a file, or from a file that options change.
//! Uses server-side apply: a later call changes the fields that are given, and removes those that
//! only an earlier call gave.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use flashjob_api::{BatchSpec, FlashRollout, GroupBudget, OnFailure, RolloutWindow};
use flashjob_rules::rollout::Rollout;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::Patch;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::selection::{self, Selection};
use super::{batches, window};
use crate::cluster::{NOT_FOUND, Place, Scope};
use crate::decode::decode;
use crate::duration;
use crate::failure::{Code, Failure};
use crate::fleet::flash::order;
use crate::fleet::manifest::{self, written};
use crate::fleet::parameters::Change;
use crate::fleet::prompt;
use crate::fleet::workload::{Workload, changeable, command_for, full_name, resource, resuming};
use crate::interruption::Interruption;
use crate::output::Output;
use crate::report::{Report, yaml};

/// Create a FlashRollout, or change one.
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the FlashRollout. Default: that of the file.
    #[arg(value_name = "NAME", required_unless_present = "file")]
    name: Option<String>,
    /// The firmware, usually an OCI reference.
    #[arg(long, value_name = "REFERENCE", value_parser = order::word)]
    firmware: Option<String>,
    /// The version that devices report once they run the firmware.
    #[arg(long, value_name = "VERSION", value_parser = order::word)]
    version: Option<String>,
    /// Image of the flash Pods. Default: the one that the device plugin names.
    #[arg(long, value_name = "IMAGE", value_parser = order::word)]
    pod_image: Option<String>,
    /// A batch, and how many devices it takes at most: canary=1, ten=10%; repeat it for several,
    /// in their order. Devices that are left form the batch rest. Default: 1 device, 10 %, the
    /// rest.
    #[arg(long, value_name = "NAME=SIZE", value_parser = batches::parse)]
    batch: Vec<BatchSpec>,
    /// Start this batch only once somebody approves it; its name, or its number from 1.
    #[arg(long, value_name = "BATCH")]
    approve: Vec<String>,
    /// Time after each batch in which no flashed device may go back to another version: 10m, 2h.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    soak: Option<Duration>,
    /// More failed devices than this in one batch stop it: 3, 5%. Default: 10%, and 0 in the first
    /// batch.
    #[arg(long, value_name = "N|N%", value_parser = batches::budget)]
    max_failed: Option<IntOrString>,
    /// Least share of a batch that must complete: 90%.
    #[arg(long, value_name = "N%", value_parser = batches::share)]
    success: Option<String>,
    /// Effect of a batch that does not pass: the run waits for a person, or it ends.
    #[arg(long, value_enum)]
    on_failure: Option<Effect>,
    /// Devices in flight at once over the whole run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=500))]
    parallelism: Option<i32>,
    /// Time at which devices may start, such as '0 2 * * */4h@Europe/Athens': five fields of cron,
    /// a duration, a time zone. Repeat it for several.
    #[arg(long, value_name = "START/DURATION@ZONE", value_parser = window::parse)]
    window: Vec<RolloutWindow>,
    /// Time at which no device may start, whatever the windows say; written like a window.
    #[arg(long, value_name = "START/DURATION@ZONE", value_parser = window::parse)]
    blackout: Vec<RolloutWindow>,
    /// No more than N devices in flight behind one node (Node=4), or with the same value of a
    /// property (GATEWAY=4).
    #[arg(long, value_name = "NAME=N", value_parser = group_budget)]
    group_budget: Option<GroupBudget>,
    /// Leave out devices that report a lower version than this.
    #[arg(long, value_name = "VERSION", value_parser = order::word)]
    min_version: Option<String>,
    /// Flash devices that report a higher version too.
    #[arg(long)]
    allow_downgrade: bool,
    /// Any new value chooses devices anew and flashes them again.
    #[arg(long, value_name = "ID", value_parser = order::word)]
    run_id: Option<String>,
    /// Take the FlashRollout from this file (-: standard input); options go over it.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Take over fields that another tool has set, such as kubectl or GitOps.
    #[arg(long)]
    force_conflicts: bool,
    /// Show the FlashRollout, have the API server check it, and store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    // Its help heading applies to all options after it.
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    scope: Scope,
}

/// Effect of a batch that does not pass.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Effect {
    /// The run waits for a person.
    Pause,
    /// The run ends.
    Abort,
}

fn group_budget(text: &str) -> Result<GroupBudget, String> {
    let parts = text.split_once('=').filter(|(by, _)| !by.trim().is_empty());
    let read = parts.and_then(|(by, count)| {
        let max_in_flight: i32 = count.trim().parse().ok().filter(|count| *count > 0)?;
        Some(GroupBudget { by: by.trim().to_owned(), max_in_flight })
    });
    read.ok_or_else(|| format!("{text:?} is not NAME=N, such as GATEWAY=4 or Node=4"))
}

/// Applies the FlashRollout, or with `--dry-run` shows what would be stored.
///
/// # Errors
/// An option is missing, the user does not confirm, or the API server rejects the object.
pub async fn run(command: &Create, interruption: &Interruption) -> Result<Report, Failure> {
    interruption.says("nothing was stored");
    let mut object = command.base()?;
    let mut place = command.scope.place().await?;
    let of_file = object["metadata"]["namespace"].as_str();
    place.namespace = manifest::namespace(&command.scope, of_file, place.namespace)?;
    object["metadata"]["namespace"] = json!(place.namespace);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    object["spec"] = Value::Object(command.spec(&object)?);
    // The state before decides what the change means: a new run, or other settings of the current
    // one.
    let existing = existing(&place, &name).await?;
    existing.iter().try_for_each(|rollout| changeable("change", rollout))?;
    // A dry run on the API server validates the object before the user is asked.
    let force = command.force_conflicts;
    let would = apply(&place, &name, &object, Change::DryRun, force).await?;
    // The API server does not validate the contents of a window.
    if let Err(fault) = Rollout::of(would.clone()).spec {
        return Err(Failure::usage(format!("FlashRollout {}: {fault}", full_name(&would))));
    }
    if command.dry_run {
        let would = FlashRollout { status: None, metadata: written(would.metadata), ..would };
        return report(&would, yaml(&would)?);
    }
    let consequence = Consequence::of(existing.as_ref(), &would)?;
    if let Consequence::Nothing = consequence {
        return report(&would, format!("{} unchanged", resource(&would)));
    }
    prompt::confirm(&question(&consequence, &would), command.yes).await?;
    interruption
        .says(format!("it may already be stored; {} shows it", command_for("status", &would)));
    // Nothing of the dry run is reused: the object may have changed while the user read the
    // question, and server-side apply decides again.
    let stored = apply(&place, &name, &object, Change::Stored, force).await?;
    let done = if existing.is_some() { "configured" } else { "created" };
    let next = match stored.is_suspended() {
        true => format!("it is paused: {}", resuming(&stored)),
        false => format!("{} -w follows it", command_for("status", &stored)),
    };
    report(&stored, format!("{} {done}; {next}", resource(&stored)))
}

async fn existing(place: &Place, name: &str) -> Result<Option<FlashRollout>, Failure> {
    match place.read(name).await {
        Ok(rollout) => Ok(Some(rollout)),
        Err(failure) if failure.reason == NOT_FOUND => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn apply(
    place: &Place,
    name: &str,
    object: &Value,
    change: Change,
    force: bool,
) -> Result<FlashRollout, Failure> {
    let parameters = change.applying(force);
    let applied =
        place.api::<FlashRollout>().patch(name, &parameters, &Patch::Apply(object)).await;
    applied.map_err(|error| {
        let failure = place.refused::<FlashRollout>("apply", name, &error);
        let kube::Error::Api(status) = &error else { return failure };
        let hint = match status.code {
            // A conflict of field managers: unlike a stale resourceVersion, it stays however often
            // the request is repeated.
            409 => "change it with the tool that set it, or take it over with --force-conflicts",
            // Server-side apply answers a field that is unknown or of the wrong type with 400 or
            // 500 (failed to create typed patch object), not with 422.
            400 | 422 | 500 => {
                "correct what the message names; kubectl explain flashrollout.spec describes each \
                 field"
            }
            _ => return failure,
        };
        Failure { message: format!("{}; {hint}", failure.message.trim_end()), ..failure }
    })
}

fn report(rollout: &FlashRollout, text: String) -> Result<Report, Failure> {
    let mut rollout = rollout.clone();
    rollout.metadata.managed_fields = None;
    Ok(Report::new(text, json!(rollout)).with(Output::Name, resource(&rollout)))
}

impl Create {
    /// Returns the object before the options: that of the file, else an empty one with the name.
    fn base(&self) -> Result<Value, Failure> {
        let mut object = match &self.file {
            Some(file) => manifest::one(file, "FlashRollout")?,
            None => json!({
                "apiVersion": FlashRollout::api_version(&()), "kind": FlashRollout::kind(&()),
                "metadata": {}, "spec": {},
            }),
        };
        for part in ["metadata", "spec"] {
            // In YAML a key without a value is null.
            if !object[part].is_object() {
                object[part] = json!({});
            }
        }
        // Set by the API server; a file from `kubectl get` contains them.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["managedFields", "resourceVersion", "uid", "creationTimestamp"] {
                metadata.remove(field);
            }
        }
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let Some(name) = &self.name {
            object["metadata"]["name"] = json!(name);
        }
        if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
            return Err(Failure::usage("the file has no metadata.name; give a NAME"));
        }
        Ok(object)
    }

    /// Returns the spec of the object with the options applied to it.
    fn spec(&self, object: &Value) -> Result<Map<String, Value>, Failure> {
        let mut spec = object["spec"].as_object().cloned().unwrap_or_default();
        set(&mut spec, "firmware", self.firmware.as_ref());
        set(&mut spec, "version", self.version.as_ref());
        if !spec.contains_key("firmware") || !spec.contains_key("version") {
            return Err(Failure::usage(
                "--firmware and --version are required, or a file with both",
            ));
        }
        self.select(&mut spec)?;
        if let Some(image) = &self.pod_image {
            spec.entry("template").or_insert_with(|| json!({}))["flashjobPodImage"] = json!(image);
        }
        let gates = batches::Gates { approve: &self.approve, soak: self.soak };
        let batches = gates.add_to(self.batches(&spec)?)?;
        set(&mut spec, "batches", batches);
        set(&mut spec, "maxFailed", self.max_failed.as_ref());
        set(&mut spec, "successThreshold", self.success.as_ref());
        let on_failure = self.on_failure.map(|effect| match effect {
            Effect::Pause => OnFailure::Pause,
            Effect::Abort => OnFailure::Abort,
        });
        set(&mut spec, "onFailure", on_failure);
        set(&mut spec, "parallelism", self.parallelism);
        // An empty list would remove the windows of the file, and let devices start at any time.
        set(&mut spec, "windows", Some(&self.window).filter(|windows| !windows.is_empty()));
        set(&mut spec, "blackouts", Some(&self.blackout).filter(|windows| !windows.is_empty()));
        set(&mut spec, "groupBudget", self.group_budget.as_ref());
        set(&mut spec, "minVersion", self.min_version.as_ref());
        // Only true is written: false, the value of an option that is not given, would replace a
        // true of the file.
        set(&mut spec, "allowDowngrade", self.allow_downgrade.then_some(true));
        set(&mut spec, "runID", self.run_id.as_ref());
        Ok(spec)
    }

    fn select(&self, spec: &mut Map<String, Value>) -> Result<(), Failure> {
        if !self.selection.is_empty() {
            set(spec, "selector", Some(self.selection.selector()));
        } else if !spec.contains_key("selector") {
            return Err(Failure::usage(
                "which devices? --type, --application, --reported-version, --node, --instance, \
                 --property, or --all for every device; --exclude-… leaves some of them out",
            ));
        } else if self.selection.excludes() {
            spec["selector"]["exclude"] = json!(self.selection.exclusion());
        }
        Ok(())
    }

    /// Returns the batches of the options, else those of the file.
    fn batches(&self, spec: &Map<String, Value>) -> Result<Vec<BatchSpec>, Failure> {
        match spec.get("batches").filter(|batches| self.batch.is_empty() && !batches.is_null()) {
            Some(written) => decode(written.clone())
                .map_err(|error| Failure::usage(format!("spec.batches of the file: {error}"))),
            None => Ok(self.batch.clone()),
        }
    }
}

fn set(spec: &mut Map<String, Value>, field: &str, value: Option<impl Serialize>) {
    if let Some(value) = value {
        spec.insert(field.to_owned(), json!(value));
    }
}

/// Effect of an apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consequence {
    /// There is no FlashRollout of that name yet.
    Created,
    /// Devices are selected anew, and the current run ends.
    NewRun,
    /// The current run continues with other settings.
    SameRun,
    /// The object already has this spec.
    Nothing,
}

impl Consequence {
    fn of(existing: Option<&FlashRollout>, would: &FlashRollout) -> Result<Self, Failure> {
        let Some(existing) = existing else { return Ok(Self::Created) };
        // Both come from the API server, so neither has fields that the definition lacks.
        if existing.spec == would.spec {
            return Ok(Self::Nothing);
        }
        // The fingerprint by which the operator decides too, so the question does not promise
        // anything else.
        let run =
            |rollout: &FlashRollout| rollout.spec.effective().ok().map(|spec| spec.fingerprint);
        if run(existing) == run(would) {
            return Ok(Self::SameRun);
        }
        // `spec.abort` is not part of the run, so it would end the new run at once.
        if would.spec.abort == Some(true) {
            let message = format!(
                "FlashRollout {} was aborted, and spec.abort would end the new run too; give \
                 another name, or remove that field first: kubectl patch flashrollout {} -n {} \
                 --type merge -p '{{\"spec\":{{\"abort\":null}}}}'",
                full_name(would),
                would.name_any(),
                would.namespace().unwrap_or_default()
            );
            return Err(Failure::new(Code::Other, "Aborted", message));
        }
        Ok(Self::NewRun)
    }
}

fn question(consequence: &Consequence, rollout: &FlashRollout) -> String {
    let spec = &rollout.spec;
    let batches: Vec<String> = spec.batches.iter().flatten().map(batches::in_words).collect();
    let batches = match batches.as_slice() {
        [] => "1 device, 10 %, the rest".to_owned(),
        batches => batches.join(", "),
    };
    let (verb, effect) = match consequence {
        Consequence::Created => ("Create", ""),
        Consequence::NewRun => (
            "Change",
            " A new run starts: devices in flight finish, then devices are chosen anew.",
        ),
        Consequence::SameRun | Consequence::Nothing => {
            ("Change", " The run continues with these settings; its devices stay the same.")
        }
    };
    let paused = match rollout.is_suspended() {
        true => " It is paused and stays paused.",
        false => "",
    };
    format!(
        "{verb} FlashRollout {}: {} version {} to {}, in batches: {batches}?{effect}{paused}",
        full_name(rollout),
        spec.firmware,
        spec.version,
        selection::in_words(&spec.selector)
    )
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashRolloutSpec;

    use super::*;

    fn rollout(version: &str) -> FlashRollout {
        let mut rollout = FlashRollout::new("hall", FlashRolloutSpec::default());
        rollout.metadata.namespace = Some("fleet".to_owned());
        rollout.spec.firmware = "r.io/f:2".to_owned();
        rollout.spec.version = version.to_owned();
        rollout.spec.selector.all = Some(true);
        rollout
    }

    #[test]
    fn another_version_is_a_new_run_and_another_budget_is_none() {
        let before = rollout("2");
        let of = |would: &FlashRollout| Consequence::of(Some(&before), would).expect("allowed");
        assert_eq!(of(&before), Consequence::Nothing);
        assert_eq!(of(&rollout("3")), Consequence::NewRun);
        let mut would = rollout("2");
        would.spec.max_failed = Some(IntOrString::Int(3));
        assert_eq!(of(&would), Consequence::SameRun);
        assert_eq!(Consequence::of(None, &would).expect("allowed"), Consequence::Created);
        let mut aborted = rollout("3");
        aborted.spec.abort = Some(true);
        let refused = Consequence::of(Some(&before), &aborted);
        assert!(refused.is_err_and(|failure| failure.message.contains("kubectl patch")));
    }

    #[test]
    fn the_question_names_devices_firmware_and_batches() {
        let mut rollout = rollout("2");
        let text = question(&Consequence::Created, &rollout);
        let expected = "Create FlashRollout fleet/hall: r.io/f:2 version 2 to every device, in \
                        batches: 1 device, 10 %, the rest?";
        assert_eq!(text, expected);
        rollout.spec.suspend = Some(true);
        let text = question(&Consequence::NewRun, &rollout);
        assert!(text.contains("A new run starts") && text.contains("It is paused"), "{text}");
    }

    #[test]
    fn a_group_budget_is_a_name_and_a_number() {
        let budget = GroupBudget { by: "GATEWAY".to_owned(), max_in_flight: 4 };
        assert_eq!(group_budget("GATEWAY=4"), Ok(budget));
        for text in ["GATEWAY", "=4", "GATEWAY=0", "GATEWAY=many"] {
            assert!(group_budget(text).is_err(), "{text}");
        }
    }
}
