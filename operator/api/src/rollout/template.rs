//! Settings that a FlashRollout passes to its FlashJobs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::flashjob::{disruption_schema, exposure_schema, settings_schema};
use crate::{Disruption, Exposure, PodOverrides, VerifySpec};

/// Settings of the FlashJobs that a rollout creates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutTemplate {
    /// Container image of the flash Pods, at most 1024 characters. Default: the image that the
    /// device plugin specifies. Changing it starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub flashjob_pod_image: Option<String>,
    /// Settings for device plugins, by plugin name, for at most 64 plugins. They override the
    /// default settings in the operator's configuration. Each plugin validates its own settings.
    /// Changing them starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "settings_schema")]
    pub settings: Option<BTreeMap<String, serde_json::Map<String, serde_json::Value>>>,
    /// Verification that a device runs the new version. In a FlashRollout, the default of `mode`
    /// is Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// Services through which devices reach their flash Pods. `PerDevice`: one Service for each
    /// device. `Pooled`: at most `parallelism` Services, each reused for one device after another.
    /// Default PerDevice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "exposure_schema")]
    pub exposure: Option<Exposure>,
    /// Effect of draining a node on flash Pods that run there. `Protect`: evictions of a flash Pod
    /// are refused until its attempt has ended. `Allow`: an eviction ends the Pod, and the device
    /// is flashed again. Default Protect, unless the operator's configuration allows disruption
    /// for all jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "disruption_schema")]
    pub disruption: Option<Disruption>,
    /// Additions to the flash Pods, such as node selector, tolerations and labels, within the
    /// limits of the operator's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_overrides: Option<PodOverrides>,
    /// Maximum duration of one attempt, in seconds, 1 to 604800; also the Pod's
    /// `activeDeadlineSeconds`. Default 900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub device_timeout_seconds: Option<i64>,
    /// Maximum time for which a device waits for its external address before it moves to the end
    /// of the queue, in seconds, 1 to 604800. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604800))]
    pub address_timeout_seconds: Option<i64>,
    /// Maximum number of retries of one device after its first attempt, 0 to 1000. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub backoff_limit_per_device: Option<i32>,
    /// IP address to request from the load balancer. No other address is used, so devices are
    /// flashed one at a time. Default: any address.
    #[serde(default, rename = "externalIP", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub external_ip: Option<String>,
}
