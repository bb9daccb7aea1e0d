//! Plans a run: selects its devices, resolves its firmware, and stores both together. Reports what
//! prevents that.

use flashjob_api::{
    EffectiveRollout, FirmwareStatus, FlashRolloutStatus, LeftOut, RolloutPhase, rollout_reason,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::members::{self, Planned};
use super::plan::Plan;
use super::run_state::RunState;
use super::snapshot::{Snapshot, after};
use super::summary;
use crate::count::counted;
use crate::firmware::{
    FirmwareState, REGISTRY, ResolveFirmware, missing_platforms, settled, waited_for,
};

/// Seconds after which a run that cannot be planned is tried again.
const LOOK_AGAIN_SECONDS: i64 = 60;

/// Selects the devices and resolves the firmware; then both are stored together.
pub(super) fn plan_run(
    snapshot: &Snapshot<'_>,
    spec: &EffectiveRollout,
    mut plan: Plan,
    mut status: FlashRolloutStatus,
) -> Plan {
    let run = status.run.clone().unwrap_or_default();
    if spec.abort {
        let message = "spec.abort is true: this run ended before it was planned".to_owned();
        let words =
            RunState::ended(RolloutPhase::Aborted, rollout_reason::ABORT_REQUESTED.name, message);
        return summary::write(snapshot, spec, status, words, plan);
    }
    let devices = snapshot.world.devices();
    let planned = match members::plan(spec, &run, &snapshot.rollout.namespace, devices) {
        Ok(planned) => planned,
        Err(fault) => {
            plan.wake_at = Some(after(snapshot.now, LOOK_AGAIN_SECONDS));
            let waiting_for = match fault {
                members::PlanFault::NoDevices => "a device that spec.selector matches",
                _ => "a change of spec.selector or spec.batches",
            };
            let words = RunState::planning(fault.reason(), waiting_for, fault.to_string(), true);
            return summary::write(snapshot, spec, status, words, plan);
        }
    };
    status.left_out = Some(planned.left_out);
    if planned.count() > 0 {
        match resolve(snapshot, spec, &run, &planned, &mut plan) {
            Ok(firmware) => status.firmware = Some(firmware),
            Err(words) => return summary::write(snapshot, spec, status, words, plan),
        }
    }
    status.start_time = Some(Time(snapshot.now));
    // A `retry` that was set before the run must not retry its first failures.
    status.retry = spec.retry.clone();
    let words = if planned.count() == 0 {
        let message = format!("nothing to flash: {}", summary::left_out(&planned.left_out));
        RunState::ended(RolloutPhase::Completed, rollout_reason::NOTHING_TO_FLASH.name, message)
    } else {
        let devices = counted(planned.count(), "device");
        let batches = planned.batches.len();
        let batches = if batches == 1 { "1 batch".into() } else { format!("{batches} batches") };
        let mut message = format!("planned {devices} in {batches}");
        if planned.left_out != LeftOut::default() {
            message.push_str(&format!("; {}", summary::left_out(&planned.left_out)));
        }
        RunState {
            message,
            ..RunState::planning(rollout_reason::PLANNED.name, "", String::new(), false)
        }
    };
    summary::add_members(&mut status, planned);
    summary::write(snapshot, spec, status, words, plan)
}

/// Returns the firmware of a run, or what the run waits for.
fn resolve(
    snapshot: &Snapshot<'_>,
    spec: &EffectiveRollout,
    run: &str,
    planned: &Planned,
    plan: &mut Plan,
) -> Result<FirmwareStatus, RunState> {
    let question = ResolveFirmware {
        run: run.to_owned(),
        batch: None,
        reference: spec.firmware.clone(),
        pin: spec.pin,
        verify: spec.verify_firmware,
        trust: snapshot.world.firmware_trust(&spec.firmware),
        version: spec.version.clone(),
        device_types: planned.device_types.clone(),
    };
    let state = snapshot.world.firmware(&question);
    let stalled = |reason: &str, message: String| RunState {
        phase: RolloutPhase::Paused,
        ..RunState::planning(reason, &format!("a person: {reason}"), message, true)
    };
    let resolved = match state {
        FirmwareState::Resolved(resolved) => resolved,
        FirmwareState::NotAsked | FirmwareState::Asking => {
            plan.question = Some(question);
            let message = format!("looking up firmware {}", spec.firmware);
            return Err(RunState::planning(
                rollout_reason::RESOLVING_FIRMWARE.name,
                REGISTRY,
                message,
                false,
            ));
        }
        FirmwareState::Failed { reason, message, permanent } => {
            plan.question = Some(question);
            let message = format!("firmware {}: {message}", spec.firmware);
            return Err(if permanent {
                stalled(&reason, message)
            } else {
                RunState::planning(&reason, waited_for(&reason), message, false)
            });
        }
    };
    let missing = missing_platforms(&planned.device_types, &resolved.platforms);
    if !missing.is_empty() {
        let message = format!(
            "firmware {} does not support device type {}; publish firmware for it, or exclude \
             these devices",
            spec.firmware,
            missing.join(", ")
        );
        // The content may change, unless the reference is a digest.
        plan.question = Some(question);
        return Err(stalled(rollout_reason::MISSING_PLATFORM.name, message));
    }
    settled(&question, resolved).map_err(|(reason, message)| stalled(reason, message))
}
