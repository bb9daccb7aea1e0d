//! Every reason a FlashRollout can be given, each with what it means and what to do. The
//! documentation is generated from here.

/// The cause of a rollout's phase. The name is what `status.reason` and the conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutReason {
    /// CamelCase, as in status.
    pub name: &'static str,
    /// Meaning: the event behind it.
    pub meaning: &'static str,
    /// Advice to a person.
    pub action: &'static str,
}

macro_rules! reasons {
    ($($constant:ident = $name:literal, $meaning:literal, $action:literal;)*) => {
        $(#[doc = $meaning] pub const $constant: RolloutReason =
            RolloutReason { name: $name, meaning: $meaning, action: $action };)*
        /// All reasons, in the order of a run.
        pub const ALL: &[RolloutReason] = &[$($constant),*];
    };
}

reasons! {
    INVALID_SPEC = "InvalidSpec",
        "The spec violates a rule. FlashJobs are left unchanged; if spec.suspend or spec.abort is \
         true, they start no more devices.",
        "The message names the field; correct it.";
    SUPERSEDED = "Superseded",
        "The spec requests a new run; devices of the previous run that are in flight finish \
         first.",
        "Nothing.";
    NO_DEVICES = "NoDevices",
        "The selector matches no device.",
        "Nothing if devices are still expected; otherwise correct spec.selector.";
    TOO_MANY_DEVICES = "TooManyDevices",
        "More than 10,000 devices would be planned.",
        "Split the fleet into several FlashRollouts.";
    EMPTY_BATCH = "EmptyBatch",
        "The selector of a batch of spec.batches matches no planned device.",
        "Change or remove the batch that the message names.";
    NOTHING_TO_FLASH = "NothingToFlash",
        "Every selected device is left out, usually because it already reports the version.",
        "Nothing; status.leftOut has the number of devices for each cause.";
    RESOLVING_FIRMWARE = "ResolvingFirmware",
        "The firmware's registry is being queried.",
        "Nothing.";
    FIRMWARE_UNAVAILABLE = "FirmwareUnavailable",
        "The registry does not answer, does not have the firmware, or denies the operator access \
         to it.",
        "Nothing while the registry is unavailable; otherwise publish the firmware, or check the \
         registry's credentials in the operator's configuration.";
    FIRMWARE_UNTRUSTED = "FirmwareUntrusted",
        "The firmware lacks a signature that firmwareTrust accepts.",
        "Sign it, or correct firmwareTrust in the operator's configuration.";
    FIRMWARE_MISMATCH = "FirmwareMismatch",
        "The firmware declares a different version or chip than the spec.",
        "Correct spec.version or spec.firmware, or publish firmware for the device type that the \
         message names.";
    PLUGIN_NOT_READY = "PluginNotReady",
        "A plugin that may inspect the firmware is not loaded, or failed several times in a row.",
        "See kubectl describe deviceplugin for the plugin that the message names.";
    INSPECTION_FAILED = "InspectionFailed",
        "A plugin could not inspect the firmware.",
        "The message is the plugin's own; correct spec.template.settings, or fix the plugin.";
    INVALID_REFERENCE = "InvalidReference",
        "The firmware is not a reference that can be resolved to a digest.",
        "Give an OCI reference, or set firmwarePolicy.pin to None.";
    MISSING_PLATFORM = "MissingPlatform",
        "The firmware does not support the type of some devices.",
        "Publish firmware for the types that the message names, or exclude these devices.";
    PLANNED = "Planned", "Devices and batches are stored.", "Nothing.";
    WINDOW_CLOSED = "WindowClosed",
        "The current time is outside all windows, or in a blackout.",
        "Nothing; status.waitingFor says when the next window opens.";
    NO_WINDOW = "NoWindow",
        "No further window opens: no date matches spec.windows, or spec.blackouts cover every \
         opening within the search limit (1,500 openings and blackouts).",
        "Correct spec.windows or spec.blackouts; the run then continues by itself.";
    APPROVAL_MISSING = "ApprovalMissing",
        "The batch requires an approval.",
        "Add the approval that the message names to spec.approvals.";
    OLDER_ROLLOUT = "OlderRollout",
        "An older FlashRollout still has to flash some of the same devices.",
        "Nothing; or end that one with spec.abort.";
    OLDER_ROLLOUT_BLOCKED = "OlderRolloutBlocked",
        "An older FlashRollout still has to flash some of the same devices, and is itself waiting \
         for a person.",
        "Unblock the FlashRollout that status.waitingFor names, as its own status says; or end it \
         with spec.abort.";
    SUSPEND_REQUESTED = "SuspendRequested", "spec.suspend is true.", "Set it to false to resume.";
    NAME_TAKEN = "NameTaken",
        "A FlashJob that does not belong to this rollout has the name of one of its FlashJobs.",
        "Delete the FlashJob that the message names, or give the FlashRollout another name.";
    FLASH_JOB_REFUSED = "FlashJobRefused",
        "The API server refuses a FlashJob of this rollout: a quota or a policy, or spec.template \
         is invalid.",
        "The message is the API server's own; adapt the quota, the policy or spec.template.";
    FLASHING = "Flashing", "Devices of a batch are being flashed.", "Nothing.";
    SOAKING = "Soaking", "A batch has ended and is being observed.", "Nothing.";
    TOO_MANY_FAILED = "TooManyFailed",
        "More devices of a batch failed than maxFailed allows.",
        "See status.failed; then set a new spec.retry, raise maxFailed, or set spec.abort.";
    REGRESSED = "Regressed",
        "Devices completed and later reported another version; more than maxFailed allows.",
        "Find out why the firmware goes back; then set a new spec.retry, or set spec.abort.";
    BELOW_SUCCESS_THRESHOLD = "BelowSuccessThreshold",
        "Fewer devices of a batch completed than successThreshold requires.",
        "See status.failed; then set a new spec.retry, lower successThreshold, or set spec.abort.";
    NOTHING_PROVEN = "NothingProven",
        "No device of a batch completed: all were skipped or absent.",
        "Set a new spec.retry: it retries them or, if none can be retried, continues without this \
         proof.";
    ABORT_REQUESTED = "AbortRequested",
        "spec.abort ended the run.",
        "To flash again, remove spec.abort and set a new runID.";
    DEADLINE_EXCEEDED = "DeadlineExceeded",
        "The run took longer than activeDeadlineSeconds.",
        "Raise activeDeadlineSeconds or parallelism; then set a new runID.";
    ALL_BATCHES_PASSED = "AllBatchesPassed", "The run is complete.", "Nothing.";
}
