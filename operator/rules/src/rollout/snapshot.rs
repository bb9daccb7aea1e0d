//! Input of a decision about one rollout.

use std::borrow::Cow;

use flashjob_api::{
    Counts, EffectiveRollout, FlashJob, FlashJobSpec, FlashJobStatus, FlashRollout,
    FlashRolloutStatus, InvalidRollout, Phase, VerifyMode,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::select::Device;
use crate::firmware::{FirmwareState, ResolveFirmware};
use crate::schedule::Schedule;

/// One rollout and its surroundings at one instant.
pub struct Snapshot<'a> {
    /// The rollout.
    pub rollout: &'a Rollout,
    /// Access to devices, and to what is known of firmware.
    pub world: &'a dyn World,
    /// FlashJobs that the rollout owns, of all its runs. They must reflect every step that was
    /// carried out before: parallelism is shared among them by what they report.
    pub children: Vec<Child<'a>>,
    /// Other rollouts that are not finished.
    pub other_rollouts: Vec<OtherRollout<'a>>,
    /// The API server's message where it refused the last step on a FlashJob (403, 422): a quota,
    /// a policy, an invalid template. None once a step was accepted.
    pub refused: Option<&'a str>,
    /// The current time.
    pub now: Timestamp,
}

/// The cluster around a rollout. Nothing is copied: there may be 100,000 devices.
pub trait World {
    /// Devices that a FlashRollout of this namespace may use, reachable or not. Called only when a
    /// run is planned.
    fn devices<'a>(&'a self) -> Box<dyn Iterator<Item = Device<'a>> + 'a>;

    /// The Instance with that name.
    fn device(&self, namespace: &str, name: &str) -> Option<Device<'_>>;

    /// The Instance with that uid.
    fn device_by_uid(&self, uid: &str) -> Option<Device<'_>>;

    /// The answer to a question, as far as it is known. It may change for as long as the plan
    /// still asks the question.
    fn firmware(&self, question: &ResolveFirmware) -> FirmwareState;

    /// Digest of the `firmwareTrust` entry that currently applies to a firmware, including its
    /// keys. None: no entry applies.
    fn firmware_trust(&self, firmware: &str) -> Option<String>;

    /// Returns true if a FlashJob with that name exists in the rollout's namespace and does not
    /// belong to the rollout.
    fn is_taken(&self, flash_job: &str) -> bool;
}

/// A FlashRollout.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Generation, which counts changes of the spec.
    pub generation: Option<i64>,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// True if it is being deleted.
    pub deleting: bool,
    /// Effective spec, or the error in it.
    pub spec: Result<EffectiveRollout, String>,
    /// True if `spec.suspend` or `spec.abort` is true, even where the rest of the spec is invalid.
    pub is_held: bool,
    /// True if `spec.abort` is true, even where the rest of the spec is invalid.
    pub is_aborted: bool,
    /// Windows and blackouts of the spec; always open where the spec is invalid.
    pub schedule: Option<Schedule>,
    /// Stored status.
    pub status: FlashRolloutStatus,
}

impl Rollout {
    /// Reads a FlashRollout. Windows are parsed here too, so an invalid one is an error in the
    /// spec.
    #[must_use]
    pub fn of(rollout: FlashRollout) -> Self {
        // Read from the spec as written: a mistyped window makes the effective spec an error, and
        // must not keep `suspend` and `abort` from their effect.
        let is_aborted = rollout.spec.abort == Some(true);
        let is_held = is_aborted || rollout.spec.suspend == Some(true);
        let spec = rollout.spec.effective();
        let schedule = spec.as_ref().ok().map(super::windows::schedule).transpose();
        let (spec, schedule) = match (spec, schedule) {
            (Err(fault), _) => (Err(fault.to_string()), None),
            (Ok(_), Err(fault)) => {
                let InvalidRollout { field, message } = fault;
                (Err(format!("{field}: {message}")), None)
            }
            (Ok(spec), Ok(schedule)) => (Ok(spec), schedule),
        };
        let status = rollout.status.unwrap_or_default();
        Self { is_held, is_aborted, ..Self::assemble(rollout.metadata, spec, schedule, status) }
    }

    /// Keeps a FlashRollout that cannot be decoded, so that its status can report the error.
    #[must_use]
    pub fn unreadable(metadata: ObjectMeta, status: FlashRolloutStatus, fault: String) -> Self {
        Self::assemble(metadata, Err(fault), None, status)
    }

    fn assemble(
        metadata: ObjectMeta,
        spec: Result<EffectiveRollout, String>,
        schedule: Option<Schedule>,
        status: FlashRolloutStatus,
    ) -> Self {
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation,
            created: metadata.creation_timestamp.map(|time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            spec,
            is_held: false,
            is_aborted: false,
            schedule,
            status,
        }
    }
}

/// A FlashJob of the rollout.
#[derive(Clone, Debug)]
pub struct Child<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The version of this state in the API server.
    pub resource_version: &'a str,
    /// Generation, which counts changes of the spec.
    pub generation: Option<i64>,
    /// True if it is being deleted and a finalizer keeps it.
    pub deleting: bool,
    /// Its stored spec.
    pub spec: &'a FlashJobSpec,
    /// Run that its spec asks for, in the form that its status uses. None: its spec is invalid.
    pub run: Option<Cow<'a, str>>,
    /// Its stored status.
    pub status: &'a FlashJobStatus,
}

impl<'a> Child<'a> {
    /// Reads a FlashJob. None: it has no name. The caller passes its status, or a default one.
    #[must_use]
    pub fn of(job: &'a FlashJob, status: &'a FlashJobStatus) -> Option<Self> {
        let metadata = &job.metadata;
        Some(Self {
            name: metadata.name.as_deref()?,
            uid: metadata.uid.as_deref().unwrap_or_default(),
            resource_version: metadata.resource_version.as_deref().unwrap_or_default(),
            generation: metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            spec: &job.spec,
            run: job.spec.effective().ok().map(|spec| Cow::Owned(spec.run)),
            status,
        })
    }

    /// Returns true if its status refers to the current spec, so that no device is started under a
    /// previous spec.
    #[must_use]
    pub(crate) fn is_observed(&self) -> bool {
        // Kubernetes API conventions: a status describes the generation in `observedGeneration`.
        // Before the current one is observed, the FlashJob may start devices by its previous spec.
        self.status.observed_generation >= self.generation
            && self.status.observed_generation.is_some()
    }

    /// Returns true if all its devices have a result.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.is_observed() && matches!(self.status.phase, Some(Phase::Completed | Phase::Failed))
    }

    /// Its counts.
    pub(super) fn counts(&self) -> Counts {
        self.status.counts.unwrap_or_default()
    }

    /// Devices that occupy a place of `parallelism`: those in flight and, where the verification
    /// of devices decides whether the run continues, those that verify.
    #[must_use]
    pub fn places(&self) -> usize {
        let counts = self.counts();
        let mode = self.spec.verify.as_ref().and_then(|verify| verify.mode);
        let judged = mode == Some(VerifyMode::Required) || self.spec.max_failed_devices.is_some();
        (counts.active + if judged { counts.verifying } else { 0 }) as usize
    }

    /// Devices with a begun attempt, in flight or verifying.
    #[must_use]
    pub fn begun_devices(&self) -> usize {
        let counts = self.counts();
        (counts.active + counts.verifying) as usize
    }

    /// Returns true if it is quiet, or was quiet when its run ended and is being deleted since: it
    /// then starts nothing, although its status no longer refers to the latest generation.
    #[must_use]
    pub(crate) fn stays_quiet(&self, run_is_over: bool) -> bool {
        self.is_quiet() || (run_is_over && self.deleting && self.begun_devices() == 0)
    }

    /// Returns true if it flashes no device and will flash none.
    #[must_use]
    pub(crate) fn is_quiet(&self) -> bool {
        self.has_ended()
            || (self.is_observed() && self.spec.suspend == Some(true) && self.begun_devices() == 0)
    }
}

/// Another rollout that is not finished.
#[derive(Clone, Copy)]
pub struct OtherRollout<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Action of a person that it waits for. None: it continues by itself.
    pub awaits_person: Option<&'a str>,
    /// Returns true if the rollout still has to flash the Instance of that namespace and name; see
    /// `open_members`.
    pub holds: &'a dyn Fn(&str, &str) -> bool,
}

/// Returns `time` plus `seconds`, limited to [`Timestamp::MAX`].
pub(super) fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
