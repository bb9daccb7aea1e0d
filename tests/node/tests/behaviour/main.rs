//! Effects on a working operator that only a real node shows: on its flash Pods, on its own Pods,
//! and on the connections of devices back to the flash Pods.

mod contact;
mod nodes;
mod operator;
mod pods;
mod standing;

use std::process::ExitCode;

use contact::*;
use flashjob_node::{suite, tests};
use nodes::*;
use operator::*;
use pods::*;

fn main() -> ExitCode {
    suite::main(tests![
        devices_of_a_restricted_namespace_are_flashed_with_either_exposure,
        an_image_that_cannot_be_pulled_is_said_at_once_and_fails_the_device,
        a_secret_that_is_missing_is_said_at_once_and_fails_the_device,
        a_container_that_runs_out_of_memory_is_a_failed_attempt_that_says_so,
        an_injected_container_neither_judges_the_device_nor_keeps_the_job_waiting,
        a_native_sidecar_does_not_keep_the_job_waiting,
        a_quota_is_a_turn_to_wait_for,
        no_attempt_is_lost_while_kube_proxy_is_slow,
        a_kubelet_that_is_killed_and_comes_back_interrupts_nothing,
        a_drain_lets_the_devices_in_flight_finish,
        a_pod_removed_by_force_frees_its_device_once_the_kubelet_has_ended_it,
        operator_pods_deleted_in_mid_flash_flash_nothing_twice,
        a_rollout_in_mid_job_flashes_nothing_twice,
        an_operator_that_hangs_is_started_again,
        a_component_of_12_mb_is_compiled_in_a_container_of_128_mib,
        a_namespace_deleted_in_mid_flash_goes_away,
        a_node_that_is_lost_does_not_lock_its_devices_for_ever,
    ])
}
