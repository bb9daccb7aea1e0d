//! Every reason a device or a job can be given, each with what it means and what to do. The
//! documentation is generated from here.

/// The cause for which a device waits, failed or was skipped. The name is what
/// `status.devices[].reason` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// CamelCase, as in status.
    pub name: &'static str,
    /// Effect on the device.
    pub effect: Effect,
    /// Meaning: the event behind it.
    pub meaning: &'static str,
    /// Advice to a person.
    pub action: &'static str,
}

/// Effect of a reason on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// The device waits and goes on by itself when the cause is gone.
    Waits,
    /// The attempt failed; the device is tried again within `backoffLimitPerDevice`.
    Attempt,
    /// The device failed permanently.
    Failed,
    /// The device is left as it was.
    Skipped,
}

macro_rules! reasons {
    ($($constant:ident = $name:literal, $effect:ident, $meaning:literal, $action:literal;)*) => {
        $(#[doc = $meaning] pub const $constant: Reason =
            Reason { name: $name, effect: Effect::$effect, meaning: $meaning, action: $action };)*
        /// All reasons, in the order of a device's life.
        pub const ALL: &[Reason] = &[$($constant),*];
    };
}

reasons! {
    UNKNOWN_DEVICE = "UnknownDevice", Failed,
        "No Akri Instance had this uid for 120 s.",
        "Compare spec.uuid with `kubectl get instances.akri.sh -o \
         custom-columns=NAME:.metadata.name,UID:.metadata.uid`; Akri assigns a new uid to a \
         device that was absent.";
    DEVICE_UNREACHABLE = "DeviceUnreachable", Waits,
        "The Instance names no node and no endpoint; after 120 s the device fails as \
         UnknownDevice.",
        "Check that the device is switched on and that Akri's agent sees it.";
    DUPLICATE_DEVICE = "DuplicateDevice", Skipped,
        "Another uid of this job is the same device.",
        "Nothing; the device is flashed once, under the other uid.";
    ALREADY_CURRENT = "AlreadyCurrent", Skipped,
        "The device already reports the version, and skipIfCurrent is set.",
        "Nothing.";
    DEVICE_TYPE_MISMATCH = "DeviceTypeMismatch", Failed,
        "The device's type or application type is not the one that the job requires.",
        "Remove the uid from the job, or correct spec.device or spec.applicationType.";
    DEVICE_NOT_ALLOWED = "DeviceNotAllowed", Failed,
        "The device belongs to a namespace that this FlashJob may not flash, or spec.hostEndpoint \
         may point to such a device.",
        "Create the FlashJob in the Instance's namespace, or extend instances.namespaces in the \
         operator's configuration. In spec.hostEndpoint, write the device's IP address, such as \
         10.0.0.7:80; for host names, see instances.hostNames.";
    NO_PLUGIN_FOR_DEVICE = "NoPluginForDevice", Failed,
        "No configured plugin serves this device type.",
        "Add a plugin for the type to the operator's configuration; `kubectl get deviceplugins` \
         shows what is loaded.";
    RESOLVING_FIRMWARE = "ResolvingFirmware", Waits,
        "spec.firmwarePolicy is set, and the firmware's registry is being queried.",
        "Nothing.";
    FIRMWARE_UNAVAILABLE = "FirmwareUnavailable", Waits,
        "The registry does not answer, does not have the firmware, or denies the operator access \
         to it. It is queried again at least once a minute.",
        "Nothing while the registry is unavailable; otherwise publish the firmware, or check the \
         registry's credentials in the operator's configuration.";
    FIRMWARE_UNTRUSTED = "FirmwareUntrusted", Waits,
        "The firmware lacks a signature that firmwareTrust accepts. It is checked again at least \
         once a minute.",
        "Sign the firmware, or correct firmwareTrust in the operator's configuration.";
    FIRMWARE_MISMATCH = "FirmwareMismatch", Waits,
        "The firmware declares a different version or chip than the spec. It is checked again at \
         least once a minute.",
        "Correct spec.version or spec.firmware, or publish firmware for the device type that the \
         message names.";
    INSPECTION_FAILED = "InspectionFailed", Waits,
        "A plugin could not inspect the firmware. It is called again at least once a minute.",
        "The message is the plugin's own; correct spec.settings, or fix the plugin.";
    INVALID_REFERENCE = "InvalidReference", Waits,
        "The firmware is not a reference that can be resolved to a digest.",
        "Give an OCI reference, or set firmwarePolicy.pin to None.";
    MISSING_PLATFORM = "MissingPlatform", Failed,
        "The firmware does not support the device's type.",
        "Publish firmware for this type too and set a new runID, or remove the uid from the job.";
    PLUGIN_NOT_READY = "PluginNotReady", Waits,
        "The plugin for this device type, or the one that inspects the firmware for it, is \
         configured but cannot be used at the moment.",
        "`kubectl describe deviceplugin` says what is wrong with it.";
    UNSUPPORTED_DEVICE = "UnsupportedDevice", Failed,
        "The plugin refuses this device or this request.",
        "The message is the plugin's own; check the Instance's properties and the job's firmware \
         and version.";
    SETTINGS_REJECTED = "SettingsRejected", Failed,
        "The plugin refuses the settings.",
        "Correct spec.settings.<plugin> at the paths that the message names.";
    GRANT_DENIED = "GrantDenied", Failed,
        "The plugin requests something that the operator's configuration does not grant it for \
         this image, the job's podOverrides request something that podPolicy does not allow, or \
         the image reference is invalid.",
        "The message names the field: extend grants of the plugin or podPolicy in the operator's \
         configuration, use an image that the grant names, or remove the field.";
    DEVICE_BUSY = "DeviceBusy", Waits,
        "Another job or another uid is flashing this device, or a Pod of an earlier attempt, or \
         of a deleted FlashJob of the same name, still exists.",
        "Nothing; the device follows when the other is done. If the message names a Pod that has \
         ended and stays: remove its finalizers.";
    WAITING_FOR_GROUP = "WaitingForGroup", Waits,
        "As many devices as groupBudget allows are in flight behind the same node or gateway, of \
         this FlashJob or of others.",
        "Nothing; the device follows when one of them is done. Or raise groupBudget.maxInFlight.";
    WAITING_FOR_ADDRESS = "WaitingForAddress", Waits,
        "The device's Service has no external address yet.",
        "Nothing if the device's message names addresses that failed attempts keep for a while; \
         otherwise check the load balancer and the size of its pool, or lower spec.parallelism.";
    WAITING_FOR_QUOTA = "WaitingForQuota", Waits,
        "A quota of the namespace leaves no room for this device's Service or Pod; other flash \
         Services or Pods use it, and the device follows when one of them is gone.",
        "Nothing; or raise the ResourceQuota that the message names, or lower spec.parallelism.";
    REQUEST_FAILING = "RequestFailing", Waits,
        "The API server does not carry out the operator's request to create this device's Service \
         or Pod: a permission is missing, a webhook fails, or the server has a problem.",
        "The message is the API server's own; compare the operator's permissions with \
         deploy/rbac, and check the cluster's admission webhooks.";
    ADDRESS_TIMEOUT = "AddressTimeout", Attempt,
        "No address was assigned within addressTimeoutSeconds, although no other flash Service \
         held one.",
        "Check the load balancer: `kubectl describe service`.";
    POD_FAILED = "PodFailed", Attempt,
        "The flash container ended without success.",
        "The message is the container's own; `kubectl logs` shows more while the Pod exists.";
    FLASH_TIMEOUT = "FlashTimeout", Attempt,
        "The attempt took longer than deviceTimeoutSeconds.",
        "Check that the device reaches the external address; raise deviceTimeoutSeconds.";
    POD_LOST = "PodLost", Attempt,
        "The Pod vanished before its outcome was observed. The device stays locked until its node \
         no longer runs the Pod, or the Pod's deadline has passed, and then completes if it \
         reports the new version. Only in its first attempt, and if it reported another version \
         before, it completes as soon as it reports the new one.",
        "Find out who removes Pods, or which node was lost.";
    IMAGE_UNAVAILABLE = "ImageUnavailable", Attempt,
        "The image of the flash container, or of a container that something else added to its \
         Pod, could not be pulled for 120 s.",
        "Check the image reference, and podOverrides.imagePullSecrets; the message is the \
         kubelet's own.";
    CONTAINER_NOT_STARTED = "ContainerNotStarted", Attempt,
        "The node could not create or start the flash container for 120 s, or until \
         deviceTimeoutSeconds. If waiting cannot help, as with an image that runs as root, the \
         device fails immediately.",
        "The message is the kubelet's own. An image that names no user other than root needs one \
         in its Dockerfile (USER 65532), or the plugin's runAsRoot and its grant; `kubectl \
         describe pod` shows the events.";
    VOLUME_UNAVAILABLE = "VolumeUnavailable", Attempt,
        "A volume of the flash Pod, or its network, was not ready for 120 s.",
        "`kubectl describe pod` names the Secret, ConfigMap or claim that is missing; create it \
         in the FlashJob's namespace.";
    INIT_CONTAINER_FAILED = "InitContainerFailed", Attempt,
        "An init container, which must end before the flash container starts, failed; the device \
         was not changed.",
        "The message has its name, exit code and output. The operator creates no init containers: \
         find out what adds it, for example a service mesh.";
    DISRUPTED = "Disrupted", Waits,
        "The cluster stopped the Pod, or its node rejected it: eviction, preemption, shutdown, or \
         lack of resources. The device is tried again, and the attempt does not count.",
        "Nothing; avoid draining nodes while devices are being flashed.";
    DISRUPTED_TOO_OFTEN = "DisruptedTooOften", Attempt,
        "The cluster stopped this device's Pods more than 10 times in this run; further \
         disruptions count as failed attempts.",
        "Find out why the cluster stops them: the message is its own, and `kubectl get events` \
         shows more.";
    UNSCHEDULABLE = "Unschedulable", Attempt,
        "The Pod could not be scheduled on any node for 120 s.",
        "`kubectl describe pod` says why; check podOverrides and the cluster's capacity.";
    DEVICE_NOT_ATTACHED = "DeviceNotAttached", Attempt,
        "The node could not attach the device to the Pod, because its previous use was not \
         released yet. The first 30 such attempts of a device in a run do not count.",
        "Nothing; if this persists, `kubectl describe node` shows what holds the device.";
    PLUGIN_FAILED = "PluginFailed", Attempt,
        "The plugin crashed or exceeded a limit during a call.",
        "The message names the limit; see `kubectl describe deviceplugin`, and inform the \
         plugin's author.";
    POD_REFUSED = "PodRefused", Failed,
        "The API server refuses the Pod: it is invalid, or a policy, Pod Security or a LimitRange \
         forbids it. If its service account or priority class is missing, or nothing of the \
         operator uses the quota, only the attempt fails.",
        "The message is the API server's own. Adapt the policy, the job's podOverrides, or pods \
         in the operator's configuration.";
    SERVICE_REFUSED = "ServiceRefused", Failed,
        "The API server refuses the Service: it is invalid, or a policy forbids it. If nothing of \
         the operator uses the quota, only the attempt fails.",
        "The message is the API server's own. Adapt the policy, or services in the operator's \
         configuration.";
    GAVE_UP = "GaveUp", Failed,
        "The plugin says that another attempt makes no sense.",
        "The message is the plugin's own.";
    VERSION_NOT_REPORTED = "VersionNotReported", Attempt,
        "The device did not report the new version in time, or went back to another before \
         verify.stableSeconds had passed.",
        "Check the device's log, and that spec.version is what this firmware reports. If it went \
         back, the new firmware did not confirm itself to its boot loader.";
    VERSION_UNPROVABLE = "VersionUnprovable", Failed,
        "verify.mode is Required, but the device already reported this version.",
        "Use verify.mode BestEffort, or skipIfCurrent.";
    JOB_STOPPED = "JobStopped", Skipped,
        "More devices failed than maxFailedDevices allows.",
        "See why the others failed; then set a new runID.";
    DEADLINE_EXCEEDED = "DeadlineExceeded", Failed,
        "The job ran longer than activeDeadlineSeconds.",
        "Raise activeDeadlineSeconds or parallelism; then set a new runID.";
}

/// The reason of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<Reason> {
    ALL.iter().copied().find(|reason| reason.name == name)
}
