//! Tests of `firmwarePolicy`: nothing is flashed before the firmware is proven, nor with a
//! reference other than the proven one.

use flashjob_api::{DeviceState, FirmwarePin, Phase, condition, reason};
use serde_json::{Value, json};

use super::fixture::{Case, creates_pod, key};
use crate::firmware::{FirmwareState, FirmwareTrust, ResolveFirmware, ResolvedFirmware};
use crate::flashjob::observed::{Inquiry, Question};
use crate::flashjob::plan::Plan;

const WRITTEN: &str = "registry.example/firmware:2";
const PINNED: &str = "registry.example/firmware@sha256:0a";

fn case(uids: &[&str], policy: Value) -> Case {
    Case::new(uids, &json!({"firmwarePolicy": policy}))
}

pub fn resolved(platforms: &[&str], signer: Option<&str>) -> FirmwareState {
    FirmwareState::Resolved(ResolvedFirmware {
        digest: Some("sha256:0a".to_owned()),
        platforms: platforms.iter().map(|name| (*name).to_owned()).collect(),
        signer: signer.map(str::to_owned),
    })
}

fn failed(reason: &str, permanent: bool) -> FirmwareState {
    let (reason, message) = (reason.to_owned(), "for a reason".to_owned());
    FirmwareState::Failed { reason, message, permanent }
}

/// Answers the question of the next plan.
fn give(case: &mut Case, state: FirmwareState) {
    let planned_question = case.plan().firmware;
    let memory = case.world.memory.entry(key("job")).or_default();
    let question = memory.firmware.follow(planned_question).expect("a new question");
    assert!(memory.firmware.take(&question, state));
}

/// Answers the question of the next plan, and stores only the status.
fn store(case: &mut Case, state: FirmwareState) {
    give(case, state);
    case.job.status = case.plan().status;
    case.see_job();
}

/// Answers the question of the next plan, and settles.
pub fn answer(case: &mut Case, state: FirmwareState) -> Plan {
    give(case, state);
    case.pass(2)
}

fn open_question(case: &mut Case) -> ResolveFirmware {
    case.plan().firmware.expect("a question")
}

fn waits_for(case: &Case) -> Vec<String> {
    case.status().waiting.into_keys().collect()
}

/// Firmware in the questions to plugins in the next plan.
fn firmware_in_questions(case: &mut Case) -> Vec<String> {
    let plan = case.plan();
    let request = |question: Question| match question {
        Question::Build { request, .. } => Some(request.firmware),
        Question::Judge { .. } => None,
    };
    plan.questions.into_iter().filter_map(request).collect()
}

#[test]
fn a_job_without_the_policy_asks_for_nothing_and_passes_the_firmware_on_as_written() {
    let mut case = Case::new(&["a"], &json!({}));
    assert_eq!(firmware_in_questions(&mut case), [WRITTEN]);
    assert_eq!(case.start().len(), 1);
    let status = case.status();
    assert_eq!((case.plan().firmware, status.firmware), (None, None));
    let kinds = status.conditions.iter().map(|condition| condition.type_.as_str());
    assert!(!kinds.into_iter().any(|kind| kind == condition::FIRMWARE_VERIFIED));
}

#[test]
fn no_device_begins_and_no_plugin_is_asked_before_the_digest_is_stored() {
    let mut case = case(&["a", "b"], json!({}));
    let plan = case.settle();
    assert_eq!((plan.questions.len(), plan.steps.len()), (0, 0));
    assert_eq!(waits_for(&case), [reason::RESOLVING_FIRMWARE.name]);
    assert_eq!(open_question(&mut case).device_types, ["esp32"]);
    give(&mut case, resolved(&[], None));
    // Resolved, but not stored: a process that starts now would ask again.
    let plan = case.plan();
    assert!(plan.urgent && plan.firmware.is_none());
    assert_eq!((plan.questions.len(), plan.steps.len()), (0, 0));
    assert_eq!(plan.status.and_then(|status| status.firmware).expect("stored").reference, PINNED);
    assert_eq!(case.start().len(), 2);
    let firmware = case.status().firmware.expect("stored");
    assert_eq!((firmware.digest.as_deref(), firmware.signer), (Some("sha256:0a"), None));
}

#[test]
fn plugins_are_told_the_digest_also_by_an_operator_that_starts_later() {
    let mut case = case(&["a", "b"], json!({}));
    case.settle();
    answer(&mut case, resolved(&["ESP32"], None));
    case.world.memory.clear();
    assert_eq!(firmware_in_questions(&mut case), [PINNED, PINNED]);
    assert_eq!(case.plan().firmware, None);
    assert_eq!(case.start().len(), 2);
}

#[test]
fn another_run_is_resolved_anew() {
    let mut case = case(&["a"], json!({}));
    case.settle();
    answer(&mut case, resolved(&[], None));
    case.spec(&json!({"runID": "again"}));
    case.settle();
    assert_eq!(case.status().firmware, None);
    assert_eq!(open_question(&mut case).reference, WRITTEN);
}

#[test]
fn a_registry_that_is_away_is_waited_for_and_firmware_that_is_not_trusted_stalls_the_job() {
    for (reason, permanent) in [
        (reason::FIRMWARE_UNAVAILABLE, false),
        (reason::FIRMWARE_UNAVAILABLE, true),
        (reason::FIRMWARE_UNTRUSTED, true),
        (reason::INVALID_REFERENCE, true),
        (reason::FIRMWARE_MISMATCH, true),
        (reason::INSPECTION_FAILED, true),
    ] {
        let mut case = case(&["a", "b"], json!({"verify": "Required"}));
        case.settle();
        let plan = answer(&mut case, failed(reason.name, permanent));
        assert_eq!((plan.questions.len(), creates_pod(&plan)), (0, 0));
        assert!(plan.firmware.is_some(), "it is asked again");
        let status = case.status();
        assert_eq!(
            (status.phase, waits_for(&case)),
            (Some(Phase::InProgress), vec![reason.name.to_owned()])
        );
        assert_eq!(condition::holds(&status.conditions, condition::STALLED), permanent);
        assert_eq!(condition::holds(&status.conditions, condition::PROGRESSING), !permanent);
        assert!(status.message.is_some_and(|text| text.contains("for a reason")));
        // The problem is fixed.
        let memory = case.world.memory.entry(key("job")).or_default();
        memory.firmware = Inquiry::default();
        answer(&mut case, resolved(&[], Some("ours.pub")));
        assert_eq!(case.start().len(), 2);
        let status = case.status();
        assert!(condition::holds(&status.conditions, condition::FIRMWARE_VERIFIED));
        assert!(!condition::holds(&status.conditions, condition::STALLED));
    }
}

#[test]
fn a_plugin_that_must_inspect_the_firmware_first_is_waited_for() {
    let mut case = case(&["a", "b"], json!({}));
    case.settle();
    let plan = answer(&mut case, failed(reason::PLUGIN_NOT_READY.name, false));
    assert_eq!((plan.questions.len(), creates_pod(&plan)), (0, 0));
    assert!(plan.firmware.is_some(), "it is asked again");
    assert_eq!(case.status().waiting.get(reason::PLUGIN_NOT_READY.name), Some(&2));
}

#[test]
fn an_answer_without_the_signature_that_is_required_proves_nothing() {
    let mut case = case(&["a"], json!({"verify": "Required"}));
    case.settle();
    answer(&mut case, resolved(&[], None));
    assert_eq!(waits_for(&case), [reason::FIRMWARE_UNTRUSTED.name]);
    assert_eq!(case.status().firmware, None);
}

#[test]
fn a_device_whose_type_the_firmware_lacks_fails_and_the_others_are_flashed() {
    let mut case = case(&["a", "b"], json!({}));
    case.device("b", &[("DEVICE", "usb"), ("HOST_ENDPOINT", "10.0.0.9"), ("VERSION", "1")]);
    case.settle();
    assert_eq!(open_question(&mut case).device_types, ["esp32", "usb"]);
    answer(&mut case, resolved(&["ESP32"], None));
    assert_eq!(case.stands("b"), (DeviceState::Failed, reason::MISSING_PLATFORM.name.to_owned()));
    assert_eq!(case.start().len(), 1);
}

#[test]
fn a_type_that_appears_later_is_proven_by_digest_while_the_others_go_on() {
    let mut case = Case::new(&["a"], &json!({"firmwarePolicy": {}, "uuid": ["a", "b"]}));
    case.settle();
    answer(&mut case, resolved(&[], None));
    assert_eq!(case.start().len(), 1);
    case.device("b", &[("DEVICE", "usb"), ("HOST_ENDPOINT", "10.0.0.9"), ("VERSION", "1")]);
    case.pass(2);
    let question = open_question(&mut case);
    assert_eq!((question.reference.as_str(), question.device_types.len()), (PINNED, 2));
    answer(&mut case, resolved(&[], None));
    assert_eq!(case.status().firmware.expect("stored").device_types, ["esp32", "usb"]);
    assert_eq!(case.start().len(), 1);
}

#[test]
fn a_signature_that_is_asked_for_in_the_middle_holds_back_whoever_has_no_pod() {
    let mut case = Case::new(&["a", "b"], &json!({"parallelism": 1}));
    case.balanced = false;
    // Its Service exists, and waits for an address.
    let services = case.settle();
    case.carry_out(&services);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
    case.spec(&json!({"firmwarePolicy": {"verify": "Required"}}));
    case.pass(2);
    assert_eq!(case.stands("a").0, DeviceState::Pending);
    assert_eq!(case.status().waiting.get(reason::RESOLVING_FIRMWARE.name), Some(&2));
    // The plugin's answer for the unresolved reference cannot be used.
    store(&mut case, resolved(&[], Some("ours.pub")));
    assert_eq!(firmware_in_questions(&mut case), [PINNED, PINNED]);
}

#[test]
fn a_reference_that_is_not_pinned_is_proven_and_passed_on_as_written() {
    let mut case = case(&["a"], json!({"pin": "None", "verify": "Required"}));
    case.settle();
    store(&mut case, resolved(&[], Some("ours.pub")));
    assert_eq!(firmware_in_questions(&mut case), [WRITTEN]);
    let firmware = case.status().firmware.expect("stored");
    assert_eq!((firmware.digest, firmware.signer.as_deref()), (None, Some("ours.pub")));
}

#[test]
fn a_signature_that_is_asked_for_later_is_looked_for_at_the_digest_of_the_run() {
    let mut case = case(&["a"], json!({"pin": "Digest"}));
    case.settle();
    store(&mut case, resolved(&[], None));
    case.spec(&json!({"firmwarePolicy": {"pin": "None", "verify": "Required"}}));
    assert_eq!(firmware_in_questions(&mut case), [""; 0]);
    let question = open_question(&mut case);
    assert_eq!((question.reference.as_str(), question.pin), (PINNED, FirmwarePin::Digest));
    store(&mut case, resolved(&[], Some("ours.pub")));
    assert_eq!(firmware_in_questions(&mut case), [PINNED]);
    // The resolved reference stays for the run, although no policy requires it any more.
    case.spec(&json!({"firmwarePolicy": null}));
    assert_eq!(firmware_in_questions(&mut case), [PINNED]);
}

/// Makes an entry of `firmwareTrust` apply to the firmware.
fn trust(case: &mut Case, allow_unsigned: bool) {
    case.world.rules.firmware_trust =
        FirmwareTrust::new(move |_| Some(format!("allowUnsigned: {allow_unsigned}")));
}

#[test]
fn a_changed_trust_holds_back_whoever_has_no_pod_until_the_digest_is_proven_again() {
    let mut case = Case::new(&["a", "b", "c"], &json!({"parallelism": 2, "firmwarePolicy": {}}));
    trust(&mut case, true);
    case.settle();
    answer(&mut case, resolved(&[], Some("ours.pub")));
    let first = case.status().firmware.expect("stored");
    case.balanced = false;
    let services = case.settle();
    case.carry_out(&services);
    case.settle();
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
    let holds =
        |case: &Case| condition::holds(&case.status().conditions, condition::FIRMWARE_VERIFIED);
    assert!(holds(&case));
    // Another process with the same configuration does not ask: the registry may be unavailable.
    case.world.memory.clear();
    assert_eq!(case.plan().firmware, None);
    trust(&mut case, false);
    case.pass(2);
    assert_eq!(case.stands("a").0, DeviceState::Pending);
    assert_eq!(case.status().waiting.get(reason::RESOLVING_FIRMWARE.name), Some(&3));
    assert!(!holds(&case));
    let question = open_question(&mut case);
    assert_eq!(
        (question.reference.as_str(), &question.device_types),
        (PINNED, &first.device_types)
    );
    let plan = answer(&mut case, failed(reason::FIRMWARE_UNTRUSTED.name, true));
    assert_eq!((plan.questions.len(), creates_pod(&plan)), (0, 0));
    assert_eq!(waits_for(&case), [reason::FIRMWARE_UNTRUSTED.name]);
    assert!(condition::holds(&case.status().conditions, condition::STALLED));
    // The firmware is trusted again, under the current entry.
    case.world.memory.clear();
    answer(&mut case, resolved(&[], Some("theirs.pub")));
    let second = case.status().firmware.expect("stored");
    assert_eq!(
        (&second.reference, second.signer.as_deref()),
        (&first.reference, Some("theirs.pub"))
    );
    assert!(first.trust.is_some() && second.trust.is_some() && first.trust != second.trust);
    assert!(holds(&case));
    assert_eq!(case.stands("a").0, DeviceState::Exposing);
}

#[test]
fn a_changed_trust_changes_nothing_for_a_job_that_is_over() {
    let mut case = case(&["a"], json!({}));
    case.settle();
    answer(&mut case, resolved(&["usb"], Some("ours.pub")));
    let status = case.status();
    assert_eq!(status.phase, Some(Phase::Failed), "{status:?}");
    trust(&mut case, false);
    case.pass(2);
    assert_eq!((case.plan().firmware, case.status()), (None, status));
}
