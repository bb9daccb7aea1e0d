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
        "The spec breaks a rule. FlashJobs stay as they are; where spec.suspend or spec.abort is \
         true, they start no more devices.",
        "The message names the field; correct it.";
    SUPERSEDED = "Superseded",
        "The spec asks for another run; devices of the run before that are in flight finish \
         first.",
        "Nothing.";
    NO_DEVICES = "NoDevices",
        "The selector matches no device.",
        "Nothing, if devices are still to appear; else correct spec.selector.";
    TOO_MANY_DEVICES = "TooManyDevices",
        "More than 10,000 devices would be planned.",
        "Split the fleet over several FlashRollouts.";
    EMPTY_BATCH = "EmptyBatch",
        "The selector of a batch of spec.batches matches no planned device.",
        "Change or remove the batch that the message names.";
    NOTHING_TO_FLASH = "NothingToFlash",
        "Every selected device is left out, mostly because it reports the version already.",
        "Nothing; status.leftOut says how many for which cause.";
    RESOLVING_FIRMWARE = "ResolvingFirmware",
        "The firmware's registry is being asked.",
        "Nothing.";
    FIRMWARE_UNAVAILABLE = "FirmwareUnavailable",
        "The registry does not answer, does not have the firmware, or denies the operator access \
         to it.",
        "Nothing while the registry is away; else publish the firmware, or check the registry's \
         credentials in the operator's configuration.";
    FIRMWARE_UNTRUSTED = "FirmwareUntrusted",
        "The firmware lacks a signature that firmwareTrust accepts.",
        "Sign it, or correct firmwareTrust in the operator's configuration.";
    FIRMWARE_MISMATCH = "FirmwareMismatch",
        "The firmware itself says another version or chip than the spec.",
        "Correct spec.version or spec.firmware, or publish firmware for the device type that the \
         message names.";
    PLUGIN_NOT_READY = "PluginNotReady",
        "A plugin that may inspect the firmware is not loaded, or broke several times in a row.",
        "See kubectl describe deviceplugin for the plugin that the message names.";
    INSPECTION_FAILED = "InspectionFailed",
        "A plugin could not inspect the firmware.",
        "The message is the plugin's own; correct spec.template.settings, or mend the plugin.";
    INVALID_REFERENCE = "InvalidReference",
        "The firmware is no reference that can be resolved to a digest.",
        "Give an OCI reference, or set firmwarePolicy.pin to None.";
    MISSING_PLATFORM = "MissingPlatform",
        "The firmware has nothing for the type of some devices.",
        "Publish firmware for the types that the message names, or exclude these devices.";
    PLANNED = "Planned", "Devices and batches are stored.", "Nothing.";
    WINDOW_CLOSED = "WindowClosed",
        "Outside of all windows, or in a blackout.",
        "Nothing; status.waitingFor says when the next window opens.";
    NO_WINDOW = "NoWindow",
        "No window opens any more: no date matches spec.windows, or spec.blackouts cover what \
         opens as far ahead as is searched (1,500 openings and blackouts).",
        "Correct spec.windows or spec.blackouts; the run then goes on by itself.";
    APPROVAL_MISSING = "ApprovalMissing",
        "The batch asks for an approval.",
        "Add what the message names to spec.approvals.";
    OLDER_ROLLOUT = "OlderRollout",
        "An older FlashRollout still has to flash some of the same devices.",
        "Nothing; or end that one with spec.abort.";
    OLDER_ROLLOUT_BLOCKED = "OlderRolloutBlocked",
        "An older FlashRollout still has to flash some of the same devices, and itself waits for \
         a person.",
        "Let the FlashRollout that status.waitingFor names go on, by what its own status says; or \
         end it with spec.abort.";
    SUSPEND_REQUESTED = "SuspendRequested", "spec.suspend is true.", "Set it to false to go on.";
    NAME_TAKEN = "NameTaken",
        "A FlashJob of somebody else has the name of one of this rollout's.",
        "Delete or rename the FlashJob that the message names.";
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
        "See why the firmware goes back; then set a new spec.retry, or set spec.abort.";
    BELOW_SUCCESS_THRESHOLD = "BelowSuccessThreshold",
        "Fewer devices of a batch completed than successThreshold asks for.",
        "See status.failed; then set a new spec.retry, lower successThreshold, or set spec.abort.";
    NOTHING_PROVEN = "NothingProven",
        "No device of a batch completed: all were skipped, or away.",
        "Set a new spec.retry: it tries them again or, where none can be, goes on without this \
         proof.";
    ABORT_REQUESTED = "AbortRequested",
        "spec.abort ended the run.",
        "To flash again, take spec.abort back and set a new runID.";
    DEADLINE_EXCEEDED = "DeadlineExceeded",
        "The run took longer than activeDeadlineSeconds.",
        "Raise activeDeadlineSeconds or parallelism; then set a new runID.";
    ALL_BATCHES_PASSED = "AllBatchesPassed", "The run is complete.", "Nothing.";
}
