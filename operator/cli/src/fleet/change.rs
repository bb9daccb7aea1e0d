//! `pause`, `resume`, `cancel`: commands that change FlashJobs. FlashRollouts are paused and
//! resumed by the same code.

use std::time::Duration;

use clap::Args;
use flashjob_api::FlashJob;
use flashjob_rules::count::counted;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::json;

use super::parameters::Change;
use super::workload::{Workload, changeable, full_name, resource};
use super::{prompt, watch};
use crate::cluster::{Place, Scope};
use crate::duration;
use crate::failure::{Code, Failure};
use crate::interruption::Interruption;
use crate::output::Output;
use crate::report::Report;

/// Start no more devices.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    pub which: Which,
}

/// Go on.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    pub which: Which,
}

/// Delete FlashJobs.
#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Wait no longer than this until they are gone: 90s, 10m. Default: as long as it takes.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// Objects of one kind.
#[derive(Debug, Args)]
pub struct Which {
    /// Names of the objects.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
}

pub async fn pause<K: Workload>(command: &Pause) -> Result<Report, Failure> {
    suspend::<K>(&command.which, true).await
}

pub async fn resume<K: Workload>(command: &Resume) -> Result<Report, Failure> {
    suspend::<K>(&command.which, false).await
}

async fn suspend<K: Workload>(which: &Which, suspend: bool) -> Result<Report, Failure> {
    let place = which.scope.place().await?;
    let (verb, done) = if suspend { ("pause", "paused") } else { ("resume", "resumed") };
    let (mut lines, mut objects) = (Vec::new(), Vec::new());
    for before in which.read_changeable::<K>(&place, verb).await? {
        if before.is_suspended() == suspend {
            lines.push(format!("{} {}", resource(&before), before.unchanged()));
            objects.push(before);
            continue;
        }
        let object: K = set_suspend(&place, &before.name_any(), suspend).await?;
        // The operator has not observed the change yet, so the object before it decides.
        lines.push(format!("{} {done}{}", resource(&object), before.consequence(suspend)));
        objects.push(object);
    }
    Ok(changed(&objects, &lines, done))
}

impl Which {
    /// Returns a client and the namespace.
    ///
    /// # Errors
    /// There is no kubeconfig, or it cannot be used.
    pub async fn place(&self) -> Result<Place, Failure> {
        self.scope.place().await
    }

    /// Reads all named objects, so that nothing is changed if one is missing.
    ///
    /// # Errors
    /// An object is missing or cannot be read.
    pub async fn read<K: Workload>(&self, place: &Place) -> Result<Vec<K>, Failure> {
        let mut objects = Vec::new();
        for name in &self.names {
            objects.push(place.read(name).await?);
        }
        Ok(objects)
    }

    /// Reads all named objects, so that nothing is changed if one of them cannot be.
    ///
    /// # Errors
    /// An object is missing, cannot be read, or is being deleted.
    pub async fn read_changeable<K: Workload>(
        &self,
        place: &Place,
        verb: &str,
    ) -> Result<Vec<K>, Failure> {
        let objects = self.read::<K>(place).await?;
        objects.iter().try_for_each(|object| changeable(verb, object))?;
        Ok(objects)
    }
}

async fn set_suspend<K: Workload>(place: &Place, name: &str, suspend: bool) -> Result<K, Failure> {
    // null removes the field, as it was before the pause.
    let value = if suspend { json!(true) } else { json!(null) };
    // Without a resourceVersion: a pause must take effect whatever else changes at the same time.
    let patch = Patch::Merge(json!({"spec": {"suspend": value}}));
    let what = if suspend { "pause" } else { "resume" };
    let patched = place.api::<K>().patch(name, &Change::Stored.patching(), &patch).await;
    let object = patched.map_err(|error| place.refused::<K>(what, name, &error))?;
    if object.is_suspended() != suspend {
        return Err(dropped::<K>(place, what, name, "spec.suspend"));
    }
    Ok(object)
}

/// Returns the failure of a change that was lost: an API server silently drops a field that the
/// CustomResourceDefinition does not have.
pub fn dropped<K: Workload>(place: &Place, what: &str, name: &str, field: &str) -> Failure {
    let message = format!(
        "cannot {what} {}: the installed CustomResourceDefinition has no field {field}; install \
         the definitions of this version (kubectl flashjob check)",
        place.named::<K>(name)
    );
    Failure::new(Code::Unavailable, "DefinitionOutdated", message)
}

/// Returns a report with the names of the objects and what was done to them.
pub fn changed<K: Workload>(objects: &[K], lines: &[String], done: &str) -> Report {
    let names: Vec<_> = objects.iter().map(resource).collect();
    let rows: Vec<_> = objects
        .iter()
        .map(|one| json!({"namespace": one.namespace(), "name": one.name_any(), "done": done}))
        .collect();
    Report::new(lines.join("\n"), json!({K::FIELD: rows})).with(Output::Name, names.join("\n"))
}

pub async fn cancel(command: &Cancel, interruption: &Interruption) -> Result<Report, Failure> {
    let place = command.which.scope.place().await?;
    interruption.says("nothing was changed");
    let jobs = command.which.read::<FlashJob>(&place).await?;
    prompt::confirm(&question(&jobs), command.yes).await?;
    let namespace = &place.namespace;
    interruption.says(format!(
        "deletions that were requested continue: the operator stops the Pods, then the FlashJob \
         disappears; kubectl flashjob status -n {namespace} shows the remaining ones"
    ));
    let mut lines = Vec::new();
    for job in &jobs {
        // All are deleted before the first wait, so that the Pods of several FlashJobs end at the
        // same time.
        delete(&place, job).await?;
    }
    if command.timeout.is_none() {
        let names: Vec<_> = jobs.iter().map(ResourceExt::name_any).collect();
        tell!(
            "Waiting until the operator has stopped the Pods and this is deleted: {}. Without a \
             running operator it is never deleted; see kubectl flashjob check. --timeout limits \
             the wait",
            names.join(", ")
        );
    }
    for job in &jobs {
        let uid = job.uid();
        watch::wait_until_deleted(&place, &job.name_any(), uid.as_deref(), command.timeout)
            .await?;
        lines.push(format!("{} deleted", resource(job)));
    }
    Ok(changed(&jobs, &lines, "deleted"))
}

fn question(jobs: &[FlashJob]) -> String {
    let named = |job: &FlashJob| {
        let name = full_name(job);
        let counts = job.status.as_ref().and_then(|status| status.counts).unwrap_or_default();
        let active = counted(counts.active as usize, "device");
        match (counts.active, counts.verifying) {
            (0, 0) => name,
            (0, verifying) => {
                format!("{name} with {} verifying", counted(verifying as usize, "device"))
            }
            (_, 0) => format!("{name} with {active} in flight"),
            (_, verifying) => format!("{name} with {active} in flight and {verifying} verifying"),
        }
    };
    let named: Vec<_> = jobs.iter().map(named).collect();
    let loss = match jobs.iter().all(Workload::is_over) {
        true => "",
        false => {
            " Running Pods are stopped, and a device in transfer may be left partially written."
        }
    };
    format!("Delete FlashJob {}?{loss}", named.join(", "))
}

async fn delete(place: &Place, job: &FlashJob) -> Result<(), Failure> {
    let name = job.name_any();
    // Deletes only the FlashJob that the user confirmed, not a newer one of that name.
    let preconditions = Preconditions { uid: job.uid(), resource_version: None };
    let parameters =
        DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match place.api::<FlashJob>().delete(&name, &parameters).await {
        Ok(_) => Ok(()),
        // 404: it is gone. 409: the uid differs, so the confirmed FlashJob is gone too.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(place.refused::<FlashJob>("delete", &name, &error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use flashjob_api::{Counts, FlashJobSpec, FlashJobStatus, Phase};
    use http::{Method, StatusCode};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::Value;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::fake_api;
    use crate::fleet::workload::DELETED;

    fn job(phase: Phase, active: u32) -> FlashJob {
        let mut job = FlashJob::new("hall-3", FlashJobSpec::default());
        job.metadata.namespace = Some("fleet".to_owned());
        job.metadata.generation = Some(1);
        job.status = Some(FlashJobStatus {
            phase: Some(phase),
            counts: Some(Counts { active, ..Counts::default() }),
            observed_generation: Some(1),
            ..FlashJobStatus::default()
        });
        job
    }

    /// Returns the answer to a list that has one FlashJob.
    fn list(job: &FlashJob) -> (StatusCode, Value) {
        let list = json!({
            "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJobList",
            "metadata": {"resourceVersion": "7"}, "items": [job],
        });
        (StatusCode::OK, list)
    }

    #[test]
    fn a_pause_says_what_becomes_of_a_job_that_is_not_at_work() {
        assert_eq!(job(Phase::InProgress, 1).consequence(true), "");
        let mut over = job(Phase::Completed, 0);
        assert!(over.consequence(true).contains("all its devices have results"));
        assert_eq!(over.consequence(false), "");
        over.metadata.generation = Some(2);
        assert_eq!(over.consequence(true), "");
    }

    #[tokio::test]
    async fn one_job_in_deletion_among_several_is_refused() {
        let mut deleted = job(Phase::InProgress, 1);
        deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let there = job(Phase::InProgress, 1);
        let place = fake_api::place(move |_, path, _| match path.ends_with("/hall-3") {
            true => Some((StatusCode::OK, json!(there))),
            false => Some((StatusCode::OK, json!(deleted))),
        });
        let read = |names: &'static [&'static str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let which = Which { names, scope: Scope::default() };
            let place = place.clone();
            async move { which.read_changeable::<FlashJob>(&place, "pause").await }
        };
        assert_eq!(read(&["hall-3"]).await.map(|jobs| jobs.len()).ok(), Some(1));
        let refusal = read(&["hall-3", "hall-4"]).await.expect_err("one is being deleted");
        assert_eq!((refusal.code, refusal.reason), (Code::Unavailable, DELETED));
        let expected = "cannot pause FlashJob fleet/hall-3: it is being deleted; kubectl flashjob \
                        status hall-3 -n fleet -w follows that, and once it is gone another \
                        FlashJob can flash its devices";
        assert_eq!(refusal.message, expected);
    }

    #[test]
    fn a_job_in_deletion_that_has_ended_is_refused_without_advice_to_watch_it() {
        let mut over = job(Phase::Completed, 0);
        over.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let refusal = changeable("pause", &over).expect_err("it is being deleted");
        let expected = "kubectl flashjob status hall-3 -n fleet shows it, and once it is gone";
        assert!(refusal.message.contains(expected), "{}", refusal.message);
    }

    #[tokio::test]
    async fn a_deletion_that_lasts_too_long_repeats_what_it_waits_for() {
        let mut ours = job(Phase::InProgress, 1);
        ours.metadata.uid = Some("ours".to_owned());
        ours.metadata.resource_version = Some("7".to_owned());
        let status = ours.status.as_mut().expect("a status");
        status.message = Some("being deleted; Pod fj-1 may run until 12:00".to_owned());
        let is_listed = AtomicBool::new(false);
        // A watch begins with a list; here it gets no further answer.
        let place = fake_api::place(move |_, _, _| {
            (!is_listed.swap(true, Ordering::Relaxed)).then(|| list(&ours))
        });
        let limit = Some(Duration::from_secs(1));
        let late = watch::wait_until_deleted(&place, "hall-3", Some("ours"), limit).await;
        let late = late.expect_err("it still exists");
        assert_eq!(late.code, Code::TimedOut);
        let expected = "; its status says: being deleted; Pod fj-1 may run until 12:00";
        assert!(late.message.ends_with(expected), "{}", late.message);
    }

    #[test]
    fn a_deletion_is_no_change_that_the_operator_has_not_seen() {
        let mut deleted = job(Phase::InProgress, 1);
        deleted.metadata.generation = Some(2);
        assert!(deleted.is_behind());
        deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(!deleted.is_behind());
        deleted.metadata.generation = Some(3);
        assert!(deleted.is_behind(), "the spec was changed before it was deleted");
    }

    #[test]
    fn the_question_names_what_a_deletion_may_leave_behind() {
        assert_eq!(question(&[job(Phase::Failed, 0)]), "Delete FlashJob fleet/hall-3?");
        let text = question(&[job(Phase::InProgress, 1)]);
        assert!(text.contains("with 1 device in flight?") && text.contains("partially written"));
    }

    #[tokio::test]
    async fn a_newer_job_of_the_same_name_is_neither_deleted_nor_waited_for() {
        let (mut ours, mut newer) = (job(Phase::InProgress, 1), job(Phase::InProgress, 1));
        ours.metadata.uid = Some("ours".to_owned());
        newer.metadata.uid = Some("newer".to_owned());
        newer.metadata.resource_version = Some("7".to_owned());
        let (sender, mut deletions) = unbounded_channel();
        let place = fake_api::place(move |method, _, body| match *method {
            Method::DELETE => {
                let _ = sender.send(body["preconditions"]["uid"].clone());
                fake_api::rejection(StatusCode::CONFLICT, "Conflict", "hall-3")
            }
            // A watch begins with a list.
            _ => Some(list(&newer)),
        });
        delete(&place, &ours).await.expect("it is gone");
        assert_eq!(deletions.recv().await, Some(json!("ours")));
        let limit = Some(Duration::from_secs(5));
        watch::wait_until_deleted(&place, "hall-3", Some("ours"), limit).await.expect("gone");
    }
}
