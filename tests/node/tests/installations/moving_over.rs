//! Migration from the Go operator to this one and back, by the steps of docs/operating.md.

use anyhow::ensure;
use flashjob_api::{Phase, condition};
use flashjob_node::go_operator::{self, GoOperator};
use flashjob_node::images::OPERATOR;
use flashjob_node::installation::{
    Installation, LIMIT, configuration, ended, job, status_where, uids,
};
use flashjob_node::{Devices, Node, inventory, life};
use flashjob_simulators::devices::{Behaviour, Report};
use flashjob_testbed::process::{eventually, repository};
use serde_json::{Value, json};

use crate::{copy, sh};

/// Namespace of the devices.
const NAMESPACE: &str = "moved";

/// Returns the commands that replace the Go operator with this one.
fn over() -> String {
    let make = format!("make --silent --directory {}", repository().display());
    format!(
        "kubectl -n operator-system scale deployment/operator-controller-manager --replicas=0
         kubectl -n operator-system wait pods -l control-plane=controller-manager --for=delete
         {make} install
         {make} deploy IMG={OPERATOR}"
    )
}

/// Commands that then remove the rest of the Go operator.
const REMOVE_GO_OPERATOR: &str = "
    kubectl delete namespace operator-system
    kubectl delete clusterrolebinding operator-manager-rolebinding \
      operator-metrics-auth-rolebinding --ignore-not-found
    kubectl delete clusterrole operator-manager-role operator-metrics-auth-role \
      operator-metrics-reader --ignore-not-found";

/// Command that suspends the second FlashJob, so that it starts no more devices.
const SUSPEND: &str = r#"
    kubectl -n moved patch flashjob half --type merge --patch '{"spec": {"suspend": true}}'"#;

/// Commands that wait for the devices in flight, and remove this operator.
const WAIT_AND_REMOVE: &str = "
    kubectl wait flashjobs --all --all-namespaces --for=condition=Reconciling=False --timeout=20m
    kubectl wait pods,services --all-namespaces -l app,uuid --for=delete \
      --timeout=5m
    kubectl delete flashrollouts --all --all-namespaces
    kubectl wait flashjobs --all-namespaces -l application.flashjob.nbfc.io/rollout --for=delete \
      --timeout=5m
    kubectl delete -f deploy/manager -f deploy/rbac/role.yaml";

/// Commands that remove the rest of this operator.
const REMOVE_DEFINITIONS: &str = "
    kubectl delete -f deploy/crds/flashrollouts.application.flashjob.nbfc.io.yaml \
      -f deploy/crds/deviceplugins.application.flashjob.nbfc.io.yaml";

/// Three devices. In each direction one is being flashed and another one waits: no result is lost,
/// no device is flashed twice, and each operator continues where the other one stopped.
pub async fn over_from_the_go_operator_and_back(node: &mut Node) -> anyhow::Result<()> {
    let before = inventory::inventory(node).await?;
    let folder = copy(node, NAMESPACE).await?;
    let go = GoOperator::install(node, NAMESPACE).await?;
    let site = Site::new(node).await?;

    // The Go operator has completed one device, and flashes the next one.
    site.second_device_holds(true).await?;
    let nothing = json!({
        "applicationType": null, "device": null, "externalIP": null, "hostEndpoint": null,
    });
    site.apply("left", &site.uids, nothing).await?;
    go.start_job("left", &site.uids[..1]).await?;
    let pod = go.flash("left", &site.uids[1], &site.endpoints[1]).await?;
    site.reports_where("the second device is called", |reports| reports[1].callbacks > 0).await?;

    sh(node, &folder, &over()).await?;
    let installation = Installation::default();
    installation.rolled_out(node).await?;
    installation.configure(node, &configuration(node, &["esp32"])).await?;
    installation.serves(node, &["esp32"]).await?;
    site.is_completed("left", &[0, 2]).await?;
    let phase = ["-n", NAMESPACE, "get", "pod", &pod, "-o", "jsonpath={.status.phase}"];
    let phase = node.kubectl(&phase).await?;
    ensure!(phase == "Running", "the Pod of the Go operator is {phase}");
    site.second_device_holds(false).await?;
    let status = ended(node, NAMESPACE, "left").await?;
    ensure!(status.phase == Some(Phase::Completed), "{status:?}");
    site.is_completed("left", &[0, 1, 2]).await?;
    site.no_flash_objects_left().await?;
    site.flashed([0, 1, 1]).await?;
    let attempts = life::audited_attempts(node, NAMESPACE)?;
    ensure!(attempts == 1, "{attempts} flash Pods for the one device that nobody had begun with");
    sh(node, &folder, REMOVE_GO_OPERATOR).await?;

    // This operator flashes the second device, and the third one waits.
    site.second_device_holds(true).await?;
    let newer = json!({
        "firmware": "harbor.nbfc.io/nubificus/firmware:0.3.0", "version": "0.3.0",
        "parallelism": 1,
    });
    site.apply("half", &site.uids[1..], newer).await?;
    site.reports_where("the second device is called", |reports| reports[1].callbacks > 1).await?;
    sh(node, &folder, SUSPEND).await?;
    status_where(node, NAMESPACE, "half", "it is suspended", |status| {
        condition::holds(&status.conditions, condition::SUSPENDED)
    })
    .await?;
    site.second_device_holds(false).await?;

    sh(node, &folder, WAIT_AND_REMOVE).await?;
    site.no_flash_objects_left().await?;
    let go = GoOperator::install(node, NAMESPACE).await?;
    sh(node, &folder, REMOVE_DEFINITIONS).await?;
    site.is_completed("left", &[0, 1, 2]).await?;
    site.is_completed("half", &[1]).await?;
    let suspend = "jsonpath={.spec.suspend}";
    let suspend =
        node.kubectl(&["-n", NAMESPACE, "get", "flashjob", "half", "-o", suspend]).await?;
    ensure!(suspend.is_empty(), "the definition is not that of the Go operator");
    go.flash("half", &site.uids[2], &site.endpoints[2]).await?;
    go.finish("half", &site.uids[2], &site.uids[1..]).await?;
    site.is_completed("half", &[1, 2]).await?;
    site.no_flash_objects_left().await?;
    site.flashed([0, 2, 2]).await?;

    node.kubectl(&["-n", NAMESPACE, "delete", "flashjobs", "--all", "--wait=false"]).await?;
    go.remove_finalizer("left").await?;
    go.remove_finalizer("half").await?;
    node.kubectl(&["delete", "-f", &go_operator::manifests()]).await?;
    node.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=180s"]).await?;
    inventory::nothing_new(node, &before).await
}

/// A namespace with three devices.
struct Site<'a> {
    node: &'a Node,
    devices: Devices,
    /// Uids of the devices' Instances.
    uids: Vec<String>,
    /// Addresses of the devices, in the same order.
    endpoints: Vec<String>,
}

impl<'a> Site<'a> {
    async fn new(node: &'a Node) -> anyhow::Result<Self> {
        // Without a Pod Security level: Pods of the Go operator do not meet the restricted one.
        node.kubectl(&["create", "namespace", NAMESPACE]).await?;
        let devices = node.devices(NAMESPACE, &["esp32:thermo:0.1.0=3"]).await?;
        uids(node, NAMESPACE, 3).await?;
        let reports = devices.fleet.devices(&node.client, NAMESPACE).await?;
        let reports = reports.into_iter().map(|(uid, report)| (uid, report.endpoint));
        let (uids, endpoints) = reports.unzip();
        Ok(Self { node, devices, uids, endpoints })
    }

    /// Applies a FlashJob as users of either operator do.
    async fn apply(&self, name: &str, uids: &[String], spec: Value) -> anyhow::Result<()> {
        let file = self.node.folder.join("flashjob.json");
        std::fs::write(&file, job(NAMESPACE, name, uids, spec).to_string())?;
        self.node.kubectl(&["apply", "-f", &file.display().to_string()]).await.map(|_| ())
    }

    /// Makes the second device hold the transfer of its firmware, or continue it.
    async fn second_device_holds(&self, holds_transfer: bool) -> anyhow::Result<()> {
        let reports = self.devices.fleet.reports().await?;
        let behaviour = Behaviour { holds_transfer, ..Behaviour::default() };
        self.devices.fleet.behave(&reports[1].id, &behaviour).await
    }

    async fn reports_where(
        &self,
        what: &str,
        holds: impl Fn(&[Report]) -> bool,
    ) -> anyhow::Result<()> {
        let reports = || async {
            let reports = self.devices.fleet.reports().await?;
            Ok(holds(&reports).then_some(()))
        };
        eventually(what, LIMIT, reports).await
    }

    /// Waits until exactly these devices are completed in a FlashJob.
    async fn is_completed(&self, name: &str, devices: &[usize]) -> anyhow::Result<()> {
        let expected: Vec<&String> = devices.iter().map(|device| &self.uids[*device]).collect();
        let what = format!("{devices:?} are completed");
        let is_completed = |completed: &[String]| {
            completed.len() == expected.len() && expected.iter().all(|uid| completed.contains(uid))
        };
        status_where(self.node, NAMESPACE, name, &what, |status| {
            is_completed(&status.completed_uuids)
        })
        .await
        .map(|_| ())
    }

    /// Waits until no flash Pod is left, and no object that belongs to one.
    async fn no_flash_objects_left(&self) -> anyhow::Result<()> {
        let kinds = ["get", "pods,services,poddisruptionbudgets", "-o", "name"];
        eventually("no flash Pod is left", LIMIT, || async {
            let object_names =
                self.node.kubectl(&[&["-n", NAMESPACE][..], &kinds].concat()).await?;
            Ok(object_names.is_empty().then_some(()))
        })
        .await
    }

    /// Checks how many times each device was flashed, and that two flashers never conflicted.
    async fn flashed(&self, times: [u32; 3]) -> anyhow::Result<()> {
        let reports = self.devices.fleet.reports().await?;
        let is_so = reports.iter().map(|report| report.flashed).eq(times)
            && reports.iter().all(|report| report.conflicts == 0 && report.refused == 0);
        ensure!(is_so, "not flashed {times:?} times: {reports:?}");
        Ok(())
    }
}
