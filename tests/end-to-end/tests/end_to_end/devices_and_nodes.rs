//! Outcome for a device when its image, its Pod, its node, its address or its Instance fails: each
//! failure has a rule, and each rule has its test here.

use std::time::Instant;

use flashjob_api::akri::Instance;
use flashjob_api::{DeviceState, FlashJobStatus, Phase};
use flashjob_end_to_end::{
    LIMIT, apply, create, delete, ended, job, jobs, nothing_left, pod_where, reason_of, runs,
    status_where,
};
use flashjob_simulators::akri::instance_name;
use flashjob_simulators::devices::{Behaviour, Report};
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed, audit};
use futures::future::{BoxFuture, FutureExt, try_join_all};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// One control plane for all cases, a device for each.
#[tokio::test]
async fn each_fault_of_a_device_or_a_node_ends_by_its_own_rule() -> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=15".into()],
        addresses: 15,
        flasher_callback_timeout_ms: 120_000,
        // On a busy machine a Pod is deleted late; its device must not be flashed before.
        flasher_ask_again_ms: 120_000,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    testbed.start_operator().await?;
    let devices = testbed.devices().await?;
    let case = |name: &'static str, index: usize| Case {
        testbed: &testbed,
        name,
        device: devices[index].clone(),
    };
    let facts: Vec<BoxFuture<'_, anyhow::Result<()>>> = vec![
        an_image_that_cannot_be_pulled_fails_the_attempt(case("no-image", 0)).boxed(),
        a_pod_that_no_node_takes_fails_the_attempt(case("no-node", 1)).boxed(),
        an_evicted_pod_spends_no_attempt(case("evicted", 2)).boxed(),
        an_eviction_waits_until_the_flash_is_over(case("drained", 13)).boxed(),
        a_pod_deleted_by_hand_is_a_failed_attempt_and_tried_again(case("deleted-pod", 3)).boxed(),
        a_pod_gone_without_an_end_locks_its_device_until_nothing_can_run(case("vanished", 4))
            .boxed(),
        a_device_whose_pod_vanished_is_free_once_its_node_no_longer_runs_it(case("freed", 14))
            .boxed(),
        a_device_whose_pod_vanished_is_proven_by_its_version(case("proven", 5)).boxed(),
        a_lost_node_locks_the_device_against_other_jobs_too(case("lost-node", 6)).boxed(),
        a_device_back_under_another_uid_is_followed(case("other-uid", 7)).boxed(),
        two_instances_of_one_endpoint_are_flashed_once(case("twins", 8)).boxed(),
        an_instance_deleted_during_the_flash_leaves_the_device_unverified(case("gone-midway", 9))
            .boxed(),
        an_instance_deleted_before_its_turn_is_unknown(case("gone-before", 10)).boxed(),
    ];
    try_join_all(facts).await?;
    nothing_left(&testbed).await?;
    // These wait for an address while no other job holds one.
    an_address_that_never_comes_is_a_failed_attempt(case("no-address", 11)).await?;
    nothing_left(&testbed).await?;
    a_host_name_alone_is_no_address_for_a_device_that_needs_an_ip(case("host-name", 12)).await?;
    nothing_left(&testbed).await?;
    assert!(testbed.fleet.reports().await?.iter().all(|report| report.conflicts == 0));
    Ok(())
}

/// A drain can evict the operator together with the Pods whose end it would have observed.
#[tokio::test]
async fn pods_that_end_while_no_operator_runs_lock_nothing_once_their_node_no_longer_runs_them()
-> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=2".into()],
        flasher_callback_timeout_ms: 120_000,
        flasher_ask_again_ms: 120_000,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    testbed.start_operator().await?;
    let devices = testbed.devices().await?;
    let names = ["retried", "deleted"];
    let mut pods = Vec::new();
    for case in cases_of(&testbed, &names, &devices) {
        case.behave(deaf_once()).await?;
        case.start(json!({"deviceTimeoutSeconds": 3600, "verify": {"timeoutSeconds": 1}})).await?;
        pods.push(case.busy_pod().await?);
        let has_node = |status: &FlashJobStatus| {
            status.devices.first().is_some_and(|device| device.node.is_some())
        };
        status_where(case.testbed, case.name, "its node is stored", has_node).await?;
    }
    testbed.kill_operator().await?;
    let cases = cases_of(&testbed, &names, &devices);
    for (case, pod) in cases.iter().zip(&pods) {
        let name = pod.name_any();
        case.pods().delete(&name, &DeleteParams::default()).await?;
        eventually("the Pod is gone", LIMIT, || async {
            Ok(case.pods().get_opt(&name).await?.is_none().then_some(()))
        })
        .await?;
    }
    testbed.start_operator().await?;
    let cases = cases_of(&testbed, &names, &devices);
    cases[1].lost().await?;
    delete(&testbed, cases[1].name).await?;
    cases[0].completed_after(2).await?;
    delete(&testbed, cases[0].name).await?;
    nothing_left(&testbed).await
}

/// One case for each device.
fn cases_of<'a>(
    testbed: &'a Testbed,
    names: &[&'static str],
    devices: &[(String, Report)],
) -> Vec<Case<'a>> {
    let case = |(name, device): (&&'static str, &(String, Report))| Case {
        testbed,
        name,
        device: device.clone(),
    };
    names.iter().zip(devices).map(case).collect()
}

struct Case<'a> {
    testbed: &'a Testbed,
    name: &'static str,
    device: (String, Report),
}

impl Case<'_> {
    fn uid(&self) -> &str {
        &self.device.0
    }

    async fn start(&self, spec: Value) -> anyhow::Result<()> {
        create(self.testbed, &job(self.name, &[self.uid().to_owned()], spec)).await
    }

    async fn behave(&self, behaviour: Behaviour) -> anyhow::Result<()> {
        self.testbed.fleet.behave(&self.device.1.id, &behaviour).await
    }

    async fn ended(&self) -> anyhow::Result<FlashJobStatus> {
        ended(self.testbed, self.name).await
    }

    async fn report(&self) -> anyhow::Result<Report> {
        let reports = self.testbed.fleet.reports().await?;
        Ok(reports.into_iter().find(|report| report.id == self.device.1.id).unwrap_or_default())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.testbed.client.clone(), "default")
    }

    fn instances(&self) -> Api<Instance> {
        Api::namespaced(self.testbed.client.clone(), "default")
    }

    /// Has Akri remove the device's Instance, and waits until it is gone.
    async fn remove_instance(&self) -> anyhow::Result<()> {
        self.testbed.fleet.akri(&self.device.1, "remove").await?;
        let name = instance_name(&self.device.1);
        eventually("the Instance is gone", LIMIT, || async {
            Ok(self.instances().get_opt(&name).await?.is_none().then_some(()))
        })
        .await
    }

    /// Waits until the device has received the update request and its Pod runs, so that the test
    /// decides how the Pod ends.
    async fn busy_pod(&self) -> anyhow::Result<Pod> {
        eventually("the device was asked", LIMIT, || async {
            Ok((self.report().await?.updates > 0).then_some(()))
        })
        .await?;
        pod_where(self.testbed, self.name, "it runs", runs).await
    }

    /// Shortens the deadline of a Pod that is about to be removed. Its kubelet has already read the
    /// deadline, and does not end it before, however late it is removed.
    async fn shorten_deadline(&self, pod: &Pod) -> anyhow::Result<()> {
        let deadline = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 15}}));
        self.pods().patch(&pod.name_any(), &PatchParams::default(), &deadline).await?;
        Ok(())
    }

    async fn lost(&self) -> anyhow::Result<FlashJobStatus> {
        let lost = |status: &FlashJobStatus| {
            status.devices.iter().any(|device| device.state == DeviceState::Lost)
        };
        status_where(self.testbed, self.name, "the Pod is lost", lost).await
    }

    async fn failed_with(&self, reason: &str, updates: u32) -> anyhow::Result<()> {
        let status = self.ended().await?;
        assert_eq!(status.phase, Some(Phase::Failed), "{}: {status:?}", self.name);
        assert_eq!(
            reason_of(&status, self.uid()).as_deref(),
            Some(reason),
            "{}: {status:?}",
            self.name
        );
        assert_eq!(self.report().await?.updates, updates, "{}", self.name);
        Ok(())
    }

    async fn completed_after(&self, updates: u32) -> anyhow::Result<FlashJobStatus> {
        let status = self.ended().await?;
        assert_eq!(status.phase, Some(Phase::Completed), "{}: {status:?}", self.name);
        assert_eq!(self.report().await?.updates, updates, "{}", self.name);
        Ok(status)
    }
}

/// The device does not call back after its first request; its flash container waits two minutes
/// for it.
fn deaf_once() -> Behaviour {
    Behaviour { no_callback: true, times: Some(1), ..Behaviour::default() }
}

fn now() -> DeleteParams {
    DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }
}

async fn an_image_that_cannot_be_pulled_fails_the_attempt(case: Case<'_>) -> anyhow::Result<()> {
    case.start(
        json!({"flashjobPodImage": "registry.example/nowhere:1", "backoffLimitPerDevice": 0}),
    )
    .await?;
    case.failed_with("ImageUnavailable", 0).await
}

async fn a_pod_that_no_node_takes_fails_the_attempt(case: Case<'_>) -> anyhow::Result<()> {
    case.start(
        json!({"podOverrides": {"nodeSelector": {"no": "where"}}, "backoffLimitPerDevice": 0}),
    )
    .await?;
    case.failed_with("Unschedulable", 0).await
}

async fn an_evicted_pod_spends_no_attempt(case: Case<'_>) -> anyhow::Result<()> {
    case.behave(deaf_once()).await?;
    case.start(json!({"backoffLimitPerDevice": 0, "disruption": "Allow"})).await?;
    let pod = case.busy_pod().await?;
    case.pods().evict(&pod.name_any(), &EvictParams::default()).await?;
    case.completed_after(2).await.map(|_| ())
}

/// The client repeats an eviction to which the API server answers 429, as `kubectl drain` does.
async fn an_eviction_waits_until_the_flash_is_over(case: Case<'_>) -> anyhow::Result<()> {
    case.behave(Behaviour::holding()).await?;
    case.start(json!({"backoffLimitPerDevice": 0})).await?;
    let pod = case.busy_pod().await?;
    let budgets: Api<PodDisruptionBudget> =
        Api::namespaced(case.testbed.client.clone(), "default");
    let of_job = ListParams::default().labels(&format!("app={}", case.name));
    eventually("the job has its budget", LIMIT, || async {
        Ok((budgets.list(&of_job).await?.items.len() == 1).then_some(()))
    })
    .await?;
    let (pods, name, parameters) = (case.pods(), pod.name_any(), EvictParams::default());
    let released = async {
        eventually("the eviction is refused", LIMIT, || async { refused(case.testbed, &name) })
            .await?;
        case.behave(Behaviour::default()).await
    };
    // The eviction succeeds once the Pod has ended, unless the Pod is gone before.
    let (evicted, released) = tokio::join!(pods.evict(&name, &parameters), released);
    released?;
    let waited = match &evicted {
        Ok(_) => true,
        Err(kube::Error::Api(status)) => matches!(status.code, 404 | 429),
        Err(_) => false,
    };
    assert!(waited, "{evicted:?}");
    case.completed_after(1).await?;
    eventually("the budget is gone with the last Pod", LIMIT, || async {
        Ok(budgets.list(&of_job).await?.items.is_empty().then_some(()))
    })
    .await
}

/// Returns `Some` if the API server has answered 429 to an eviction of this Pod.
fn refused(testbed: &Testbed, pod: &str) -> anyhow::Result<Option<()>> {
    let entries = audit::entries(&testbed.control_plane.audit_log, "administrator")?;
    let is_refused = |entry: &Value| {
        entry["objectRef"]["subresource"] == "eviction"
            && entry["objectRef"]["name"] == pod
            && entry["responseStatus"]["code"] == 429
    };
    Ok(entries.iter().any(is_refused).then_some(()))
}

async fn a_pod_deleted_by_hand_is_a_failed_attempt_and_tried_again(
    case: Case<'_>,
) -> anyhow::Result<()> {
    case.behave(deaf_once()).await?;
    case.start(json!({})).await?;
    let pod = case.busy_pod().await?;
    case.pods().delete(&pod.name_any(), &DeleteParams::default()).await?;
    case.completed_after(2).await.map(|_| ())
}

async fn a_pod_gone_without_an_end_locks_its_device_until_nothing_can_run(
    case: Case<'_>,
) -> anyhow::Result<()> {
    case.behave(deaf_once()).await?;
    case.start(json!({"deviceTimeoutSeconds": 3600, "verify": {"timeoutSeconds": 1}})).await?;
    let pod = case.busy_pod().await?;
    // The next attempt's Pod stays until it is seen.
    case.behave(Behaviour::holding()).await?;
    case.shorten_deadline(&pod).await?;
    let deleted_at = Instant::now();
    case.pods().delete(&pod.name_any(), &now()).await?;
    let status = case.lost().await?;
    assert_eq!(reason_of(&status, case.uid()).as_deref(), Some("PodLost"), "{status:?}");
    let next = pod_where(case.testbed, case.name, "it is the next attempt's", |next| {
        next.uid() != pod.uid()
    })
    .await?;
    // The deadline plus ten seconds of grace, minus rounding: times are whole seconds.
    assert!(
        deleted_at.elapsed().as_secs() >= 24,
        "{} came after {:?}",
        next.name_any(),
        deleted_at.elapsed()
    );
    case.behave(Behaviour::default()).await?;
    case.completed_after(2).await.map(|_| ())
}

/// The deadline of the Pod is far away.
async fn a_device_whose_pod_vanished_is_free_once_its_node_no_longer_runs_it(
    case: Case<'_>,
) -> anyhow::Result<()> {
    case.behave(deaf_once()).await?;
    case.start(json!({"deviceTimeoutSeconds": 3600, "verify": {"timeoutSeconds": 1}})).await?;
    let pod = case.busy_pod().await?;
    case.pods().delete(&pod.name_any(), &now()).await?;
    let status = case.lost().await?;
    let node = pod.spec.and_then(|spec| spec.node_name);
    assert_eq!(status.devices[0].node, node, "{status:?}");
    case.completed_after(2).await.map(|_| ())
}

async fn a_device_whose_pod_vanished_is_proven_by_its_version(
    case: Case<'_>,
) -> anyhow::Result<()> {
    case.behave(deaf_once()).await?;
    // The device has a long time to report, so that it is not flashed again before it does.
    case.start(json!({"deviceTimeoutSeconds": 3600, "verify": {"timeoutSeconds": 600}})).await?;
    let pod = case.busy_pod().await?;
    case.pods().delete(&pod.name_any(), &now()).await?;
    case.lost().await?;
    let patch = Patch::Merge(json!({"spec": {"brokerProperties": {"VERSION": "0.2.0"}}}));
    case.instances()
        .patch(&instance_name(&case.device.1), &PatchParams::default(), &patch)
        .await?;
    let status = case.completed_after(1).await?;
    assert_eq!(status.counts.unwrap_or_default().unverified, 0, "{status:?}");
    Ok(())
}

async fn a_lost_node_locks_the_device_against_other_jobs_too(
    case: Case<'_>,
) -> anyhow::Result<()> {
    case.behave(deaf_once()).await?;
    case.start(json!({"deviceTimeoutSeconds": 3600, "verify": {"timeoutSeconds": 1}})).await?;
    let pod = case.busy_pod().await?;
    // If the lock ends before the other job has seen it, the next attempt keeps the device.
    case.behave(Behaviour::holding()).await?;
    case.shorten_deadline(&pod).await?;
    // As Pod garbage collection marks the Pods of a node that no longer exists.
    let collected = json!({"status": {"phase": "Failed", "conditions": [
        {
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
        }
    ]}});
    case.pods()
        .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(collected))
        .await?;
    case.pods().delete(&pod.name_any(), &now()).await?;
    case.lost().await?;
    // Another version: the version that one job waits for is no proof for the other.
    let other = json!({"version": "0.3.0", "firmware": "harbor.nbfc.io/nubificus/firmware:0.3.0"});
    create(case.testbed, &job("lost-node-other", &[case.uid().to_owned()], other)).await?;
    let busy =
        |status: &FlashJobStatus| reason_of(status, case.uid()).as_deref() == Some("DeviceBusy");
    let status =
        status_where(case.testbed, "lost-node-other", "it waits for the device", busy).await?;
    assert!(
        status.message.is_some_and(|message| message.contains("default/lost-node")),
        "it says for whom it waits"
    );
    case.behave(Behaviour::default()).await?;
    ended(case.testbed, "lost-node-other").await?;
    case.completed_after(3).await.map(|_| ())
}

async fn a_device_back_under_another_uid_is_followed(case: Case<'_>) -> anyhow::Result<()> {
    case.behave(Behaviour::holding()).await?;
    case.start(json!({})).await?;
    case.busy_pod().await?;
    case.testbed.fleet.akri(&case.device.1, "recreate").await?;
    case.behave(Behaviour::default()).await?;
    let status = case.completed_after(1).await?;
    assert_eq!(
        status.counts.unwrap_or_default().unverified,
        0,
        "it was proven by the Instance with the new uid: {status:?}"
    );
    assert_eq!(status.completed_uuids, [case.uid()]);
    Ok(())
}

async fn two_instances_of_one_endpoint_are_flashed_once(case: Case<'_>) -> anyhow::Result<()> {
    let first = case.instances().get(&instance_name(&case.device.1)).await?;
    let twin = case
        .instances()
        .create(&PostParams::default(), &Instance::new("akri-twin", first.spec))
        .await?;
    let twin = twin.uid().unwrap_or_default();
    create(case.testbed, &job(case.name, &[case.uid().to_owned(), twin.clone()], json!({})))
        .await?;
    let status = case.completed_after(1).await?;
    assert_eq!(
        (status.completed_uuids.as_slice(), &status.skipped_uuids),
        ([case.uid().to_owned()].as_slice(), &vec![twin.clone()])
    );
    assert_eq!(reason_of(&status, &twin).as_deref(), Some("DuplicateDevice"));
    Ok(())
}

async fn an_instance_deleted_during_the_flash_leaves_the_device_unverified(
    case: Case<'_>,
) -> anyhow::Result<()> {
    case.behave(Behaviour::holding()).await?;
    case.start(json!({"verify": {"timeoutSeconds": 2}})).await?;
    case.busy_pod().await?;
    case.remove_instance().await?;
    case.behave(Behaviour::default()).await?;
    let status = case.completed_after(1).await?;
    assert_eq!(status.counts.unwrap_or_default().unverified, 1, "{status:?}");
    Ok(())
}

async fn an_instance_deleted_before_its_turn_is_unknown(case: Case<'_>) -> anyhow::Result<()> {
    case.start(json!({"suspend": true})).await?;
    status_where(case.testbed, case.name, "the device is recorded", |status| {
        !status.devices.is_empty()
    })
    .await?;
    case.remove_instance().await?;
    apply(case.testbed, &job(case.name, &[case.uid().to_owned()], json!({"suspend": false})))
        .await?;
    case.failed_with("UnknownDevice", 0).await
}

async fn an_address_that_never_comes_is_a_failed_attempt(case: Case<'_>) -> anyhow::Result<()> {
    let spec = json!({
        "externalIP": "203.0.113.9", "addressTimeoutSeconds": 2, "backoffLimitPerDevice": 0,
    });
    case.start(spec).await?;
    case.failed_with("AddressTimeout", 0).await
}

async fn a_host_name_alone_is_no_address_for_a_device_that_needs_an_ip(
    case: Case<'_>,
) -> anyhow::Result<()> {
    let spec = json!({
        "externalIP": "203.0.113.10", "addressTimeoutSeconds": 600, "backoffLimitPerDevice": 0,
    });
    case.start(spec).await?;
    let services: Api<Service> = Api::namespaced(case.testbed.client.clone(), "default");
    let of_job = ListParams::default().labels(&format!("app={}", case.name));
    let service = eventually("there is a Service", LIMIT, || async {
        Ok(services.list(&of_job).await?.items.pop())
    })
    .await?;
    let patch = Patch::Merge(
        json!({"status": {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}}),
    );
    services.patch_status(&service.name_any(), &PatchParams::default(), &patch).await?;
    let names_host = |status: &FlashJobStatus| {
        let mut messages = status.devices.iter().filter_map(|device| device.message.as_deref());
        messages.any(|message| message.contains("lb.example"))
    };
    status_where(case.testbed, case.name, "the host name is seen", names_host).await?;
    // The Service has existed for at least that long.
    let patch = Patch::Merge(json!({"spec": {"addressTimeoutSeconds": 1}}));
    jobs(case.testbed).patch(case.name, &PatchParams::default(), &patch).await?;
    case.failed_with("AddressTimeout", 0).await
}
