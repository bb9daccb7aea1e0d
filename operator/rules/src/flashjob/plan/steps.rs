//! A plan for one job: its questions, its steps, its status, and the results of its devices.

use std::fmt;

use flashjob_api::{FlashJobStatus, Reason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::firmware::ResolveFirmware;
use crate::flashjob::observed::{Finish, Identity, Question};

/// Everything to be done for one job.
#[derive(Debug, Default)]
pub struct Plan {
    /// Questions that plugins must be asked before more can be decided.
    pub questions: Vec<Question>,
    /// Question to the registry about the firmware; the same in each plan until it is answered.
    pub firmware: Option<ResolveFirmware>,
    /// Requests to the API server, each idempotent.
    pub steps: Vec<Step>,
    /// Status to store. None: it is up to date, or could not be stored now.
    pub status: Option<FlashJobStatus>,
    /// Devices that get their result with this status: the status itself lists only some of them
    /// with their reason.
    pub results: Vec<DeviceResult>,
    /// True if something waits for the status to be stored.
    pub urgent: bool,
    /// Identities that this job locks now, and the uid under which it locks each.
    pub holds: Vec<(Identity, String)>,
    /// Time at which to plan again even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// Result of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceResult {
    /// The uid in `spec.uuid`.
    pub uid: String,
    /// Name of the Akri Instance, where it is known.
    pub name: Option<String>,
    /// Namespace of the Akri Instance; None if the Instance does not exist.
    pub namespace: Option<String>,
    /// The attempt that the device was at, from 1.
    pub attempt: u32,
    /// Kind of the result.
    pub finish: Finish,
    /// True if the version of a completed device is proven.
    pub verified: bool,
    /// Reason of a failed or skipped device.
    pub reason: Option<Reason>,
    /// Message that belongs to the reason.
    pub message: String,
}

/// A request to the API server.
#[derive(Clone, Debug)]
pub enum Step {
    /// Adds our finalizer to the FlashJob.
    AddFinalizer,
    /// Removes our finalizer from the FlashJob.
    RemoveFinalizer,
    /// Deletes the FlashJob, whose time to live after it finished has passed.
    DeleteJob,
    /// Creates a Service.
    CreateService(Box<core::Service>),
    /// Creates a Pod.
    CreatePod(Box<core::Pod>),
    /// Deletes a Service.
    DeleteService {
        /// Its name.
        name: String,
        /// Its uid, as a precondition: another Service with that name is not deleted.
        uid: String,
    },
    /// Deletes a Pod.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid, as a precondition: another Pod with that name is not deleted.
        uid: String,
    },
    /// Creates the PodDisruptionBudget that denies evictions of the job's Pods.
    Protect(Box<PodDisruptionBudget>),
    /// Deletes that PodDisruptionBudget, which allows evictions again.
    Unprotect {
        /// Name of the budget.
        name: String,
    },
    /// Queries whether a Pod that left the cache is really gone.
    ConfirmPod {
        /// Its name.
        name: String,
        /// The device it flashes.
        device: String,
        /// True if it is to be deleted where it still exists.
        delete: bool,
    },
    /// Reads a node and its Lease, to learn whether a Pod that vanished can still be running there.
    ReadNode {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |object: &kube_core::ObjectMeta| object.name.clone().unwrap_or_default();
        match self {
            Self::AddFinalizer => formatter.write_str("adding the finalizer"),
            Self::RemoveFinalizer => formatter.write_str("removing the finalizer"),
            Self::DeleteJob => formatter.write_str("deleting the finished FlashJob"),
            Self::CreateService(service) => {
                write!(formatter, "creating Service {}", name(&service.metadata))
            }
            Self::CreatePod(pod) => write!(formatter, "creating Pod {}", name(&pod.metadata)),
            Self::DeleteService { name, .. } => write!(formatter, "deleting Service {name}"),
            Self::DeletePod { name, .. } => write!(formatter, "deleting Pod {name}"),
            Self::Protect(budget) => {
                write!(formatter, "creating PodDisruptionBudget {}", name(&budget.metadata))
            }
            Self::Unprotect { name } => {
                write!(formatter, "deleting PodDisruptionBudget {name}")
            }
            Self::ConfirmPod { name, delete: true, .. } => {
                write!(formatter, "deleting Pod {name} if it still exists")
            }
            Self::ConfirmPod { name, .. } => {
                write!(formatter, "checking whether Pod {name} still exists")
            }
            Self::ReadNode { name } => write!(formatter, "reading node {name} and its Lease"),
        }
    }
}

impl Step {
    /// Returns true if this step creates an object.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.created_name().is_some()
    }

    /// Name of the object that this step creates.
    #[must_use]
    pub fn created_name(&self) -> Option<&str> {
        match self {
            Self::CreateService(service) => service.metadata.name.as_deref(),
            Self::CreatePod(pod) => pod.metadata.name.as_deref(),
            _ => None,
        }
    }

    /// Subject of this step; only one step per subject is in flight at a time.
    #[must_use]
    pub fn key(&self) -> String {
        let name = |object: &kube_core::ObjectMeta| object.name.clone().unwrap_or_default();
        match self {
            Self::AddFinalizer | Self::RemoveFinalizer => "finalizer".to_owned(),
            Self::DeleteJob => "job".to_owned(),
            Self::Protect(_) | Self::Unprotect { .. } => "budget".to_owned(),
            // Create and delete of one object share a key: a delete sent while the create is in
            // flight could be answered first, and the object would stay.
            Self::CreateService(service) => format!("service/{}", name(&service.metadata)),
            Self::DeleteService { name, .. } => format!("service/{name}"),
            Self::CreatePod(pod) => format!("pod/{}", name(&pod.metadata)),
            Self::DeletePod { name, .. } | Self::ConfirmPod { name, .. } => format!("pod/{name}"),
            Self::ReadNode { name } => format!("node/{name}"),
        }
    }
}
