//! States of a flash Pod that a kubelet reports and simulated nodes do not reach. The test acts as
//! the kubelet of a node that has none.

use std::collections::BTreeMap;

use flashjob_api::{FlashJobStatus, Phase};
use flashjob_end_to_end::{LIMIT, create, ended, job, pod_where, reason_of, status_where};
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// Name of the node, and value of its label.
const NODE: &str = "silent-node";

#[tokio::test]
async fn only_what_a_kubelet_says_of_the_flash_container_decides() -> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=4".into()],
        addresses: 4,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    add_silent_node(&testbed).await?;
    testbed.start_operator().await?;
    let devices = testbed.devices().await?;
    let case = |name: &'static str, index: usize| Case {
        testbed: &testbed,
        name,
        uid: devices[index].0.clone(),
    };
    tokio::try_join!(
        the_end_of_flash_is_the_end_while_a_sidecar_runs(case("sidecar", 0)),
        a_root_image_is_refused_at_once_with_the_kubelet_s_words(case("root-image", 1)),
        a_missing_secret_is_told_while_it_is_waited_for(case("no-secret", 2)),
        a_node_whose_clock_is_wrong_keeps_its_pod(case("wrong-clock", 3)),
    )?;
    Ok(())
}

/// Adds a node that is ready and whose kubelet reports nothing.
async fn add_silent_node(testbed: &Testbed) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(testbed.client.clone());
    let node = json!({"metadata": {"name": NODE, "labels": {"role": NODE}}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let size = BTreeMap::from([("cpu", "64"), ("memory", "64Gi"), ("pods", "500")]);
    let ready = json!([{"type": "Ready", "status": "True", "reason": "Said"}]);
    let status = json!({"status": {"capacity": size, "allocatable": size, "conditions": ready}});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

struct Case<'a> {
    testbed: &'a Testbed,
    name: &'static str,
    uid: String,
}

impl Case<'_> {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.testbed.client.clone(), "default")
    }

    /// Starts a job on the silent node, and returns its Pod once that is bound.
    async fn start(&self) -> anyhow::Result<Pod> {
        let everywhere = json!([{"operator": "Exists"}]);
        let place = json!({"nodeSelector": {"role": NODE}, "tolerations": everywhere});
        let spec =
            json!({"podOverrides": place, "backoffLimitPerDevice": 0, "verify": {"mode": "None"}});
        create(self.testbed, &job(self.name, std::slice::from_ref(&self.uid), spec)).await?;
        let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        pod_where(self.testbed, self.name, "it is bound", is_bound).await
    }

    async fn say(&self, pod: &Pod, status: Value) -> anyhow::Result<()> {
        let status = json!({"status": status});
        let params = PatchParams::default();
        self.pods().patch_status(&pod.name_any(), &params, &Patch::Merge(&status)).await?;
        Ok(())
    }

    async fn wait_for_reason(&self, reason: &str, words: &str) -> anyhow::Result<FlashJobStatus> {
        let has_reason = |status: &FlashJobStatus| {
            let device = status.devices.iter().find(|device| device.uid == self.uid);
            device.is_some_and(|device| {
                device.reason.as_deref() == Some(reason)
                    && device.message.as_deref().is_some_and(|message| message.contains(words))
            })
        };
        status_where(self.testbed, self.name, reason, has_reason).await
    }
}

fn container(name: &str, state: Value) -> Value {
    json!({
        "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": state,
    })
}

async fn the_end_of_flash_is_the_end_while_a_sidecar_runs(case: Case<'_>) -> anyhow::Result<()> {
    let pod = case.start().await?;
    let containers = [
        container("mesh", json!({"running": {}})),
        container("flash", json!({"terminated": {"exitCode": 0}})),
    ];
    case.say(&pod, json!({"phase": "Running", "containerStatuses": containers})).await?;
    let status = ended(case.testbed, case.name).await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    eventually("the Pod is told to end", LIMIT, || async {
        let pod = case.pods().get_opt(&pod.name_any()).await?;
        Ok(pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()).then_some(()))
    })
    .await
}

async fn a_root_image_is_refused_at_once_with_the_kubelet_s_words(
    case: Case<'_>,
) -> anyhow::Result<()> {
    let pod = case.start().await?;
    let words = "container has runAsNonRoot and image will run as root";
    let waiting = json!({"waiting": {"reason": "CreateContainerConfigError", "message": words}});
    let containers = [container("flash", waiting)];
    case.say(&pod, json!({"phase": "Pending", "containerStatuses": containers})).await?;
    let status = ended(case.testbed, case.name).await?;
    assert_eq!(
        reason_of(&status, &case.uid).as_deref(),
        Some("ContainerNotStarted"),
        "{status:?}"
    );
    case.wait_for_reason("ContainerNotStarted", words).await.map(|_| ())
}

async fn a_missing_secret_is_told_while_it_is_waited_for(case: Case<'_>) -> anyhow::Result<()> {
    let pod = case.start().await?;
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    let unready = json!([{"type": "PodReadyToStartContainers", "status": "False"}]);
    let containers = [container("flash", waiting)];
    let status =
        json!({"phase": "Pending", "conditions": unready, "containerStatuses": containers});
    case.say(&pod, status).await?;
    case.wait_for_reason("VolumeUnavailable", "ContainerCreating").await.map(|_| ())
}

async fn a_node_whose_clock_is_wrong_keeps_its_pod(case: Case<'_>) -> anyhow::Result<()> {
    let pod = case.start().await?;
    for clock in ["2007-03-04T05:06:07Z", "2092-03-04T05:06:07Z"] {
        let containers = [container("flash", json!({"running": {"startedAt": clock}}))];
        let status =
            json!({"phase": "Running", "startTime": clock, "containerStatuses": containers});
        case.say(&pod, status).await?;
    }
    // The operator has observed the Pod meanwhile, and now observes its end.
    let containers = [container("flash", json!({"terminated": {"exitCode": 0}}))];
    case.say(&pod, json!({"phase": "Succeeded", "containerStatuses": containers})).await?;
    let status = ended(case.testbed, case.name).await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    Ok(())
}
