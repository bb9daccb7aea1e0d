//! A group budget limits several FlashRollouts and FlashJobs together. The test counts the flash
//! Pods at work in the order in which etcd stored their changes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use flashjob_api::{Phase, RolloutPhase};
use flashjob_end_to_end::rollouts::{self, behave, flashed, rollout};
use flashjob_end_to_end::{called, create, ended, job};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::{Options, Testbed};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Group of a flash Pod.
type GroupOf = fn(&Pod) -> Option<String>;

/// Counts the flash Pods at work in each group.
struct Count {
    task: JoinHandle<anyhow::Result<BTreeMap<String, usize>>>,
    stop: oneshot::Sender<()>,
}

impl Count {
    async fn begin(testbed: &Testbed, group: GroupOf) -> anyhow::Result<Self> {
        let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
        let flash = "app,uuid";
        let none = pods.list(&ListParams::default().labels(flash)).await?;
        ensure!(none.items.is_empty(), "nothing is flashed yet");
        let version = none.metadata.resource_version.context("no resource version")?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let parameters = WatchParams::default().labels(flash);
            let mut events = std::pin::pin!(pods.watch(&parameters, &version).await?);
            let mut stopped = std::pin::pin!(stopped);
            let (mut at_work, mut most) = (BTreeMap::new(), BTreeMap::new());
            loop {
                let event = tokio::select! {
                    event = events.try_next() => event?.context("the watch ended")?,
                    _ = &mut stopped => return Ok(most),
                };
                note(&mut at_work, event, group)?;
                for group in at_work.values().collect::<BTreeSet<_>>() {
                    let now = at_work.values().filter(|other| *other == group).count();
                    let before = most.entry(group.clone()).or_insert(0);
                    *before = now.max(*before);
                }
            }
        });
        Ok(Self { task, stop })
    }

    /// Returns the highest number of Pods that each group had at work at the same time.
    async fn most(self) -> anyhow::Result<BTreeMap<String, usize>> {
        let _ = self.stop.send(());
        self.task.await?
    }
}

fn note(
    at_work: &mut BTreeMap<String, String>,
    event: WatchEvent<Pod>,
    group: GroupOf,
) -> anyhow::Result<()> {
    match event {
        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if matches!(phase, Some("Succeeded" | "Failed")) {
                at_work.remove(&pod.name_any());
            } else {
                at_work.insert(pod.name_any(), group(&pod).context("a Pod without group")?);
            }
        }
        WatchEvent::Deleted(pod) => drop(at_work.remove(&pod.name_any())),
        WatchEvent::Bookmark(_) => {}
        WatchEvent::Error(error) => anyhow::bail!("{error:?}"),
    }
    Ok(())
}

fn application(pod: &Pod) -> Option<String> {
    let container = pod.spec.as_ref()?.containers.first()?;
    let variables = container.env.iter().flatten();
    let mut application_types = variables.filter(|variable| variable.name == "APPLICATION_TYPE");
    application_types.next()?.value.clone()
}

async fn testbed() -> anyhow::Result<Testbed> {
    let devices = vec!["esp32:thermo:0.1.0=6".to_owned(), "esp32:hygro:0.1.0=6".to_owned()];
    let options = Options { devices, addresses: 12, ..Options::default() };
    let mut testbed = Testbed::start(&options).await?;
    testbed.start_operator().await?;
    // Until as many are in flight as the budgets allow.
    behave(&testbed, &Behaviour::holding()).await?;
    Ok(testbed)
}

#[tokio::test]
async fn two_rollouts_at_once_have_no_more_devices_in_flight_behind_a_node_than_their_budget()
-> anyhow::Result<()> {
    let testbed = testbed().await?;
    let count = Count::begin(&testbed, |_| Some("node".to_owned())).await?;
    let names = ["thermo", "hygro"];
    for name in names {
        let spec = json!({
            "selector": {"applicationTypes": [name]}, "batches": [{"name": "all"}],
            "parallelism": 6, "groupBudget": {"by": "Node", "maxInFlight": 2},
        });
        rollouts::apply(&testbed, &rollout(&testbed, name, spec)).await?;
    }
    called(&testbed, 2).await?;
    behave(&testbed, &Behaviour::default()).await?;
    for name in names {
        let status = rollouts::ended(&testbed, name).await?;
        ensure!(status.phase == Some(RolloutPhase::Completed), "{name}: {status:?}");
    }
    let most = count.most().await?;
    ensure!(most == BTreeMap::from([("node".to_owned(), 2)]), "{most:?}");
    ensure!(flashed(&testbed).await? == [1; 12]);
    Ok(())
}

#[tokio::test]
async fn three_flash_jobs_at_once_have_no_more_devices_in_flight_in_a_group_than_their_budget()
-> anyhow::Result<()> {
    let testbed = testbed().await?;
    let uids: Vec<String> = testbed.devices().await?.into_iter().map(|(uid, _)| uid).collect();
    let count = Count::begin(&testbed, application).await?;
    let names = ["first", "second", "third"];
    for (number, name) in names.into_iter().enumerate() {
        // Two devices of each application.
        let job_uids: Vec<String> = uids.iter().skip(number).step_by(3).cloned().collect();
        let budget = json!({"by": "APPLICATION_TYPE", "maxInFlight": 2});
        let spec = json!({"parallelism": 4, "groupBudget": budget});
        create(&testbed, &job(name, &job_uids, spec)).await?;
    }
    called(&testbed, 4).await?;
    behave(&testbed, &Behaviour::default()).await?;
    for name in names {
        let status = ended(&testbed, name).await?;
        ensure!(status.phase == Some(Phase::Completed), "{name}: {status:?}");
    }
    let most = count.most().await?;
    let expected = [("hygro", 2), ("thermo", 2)].map(|(group, most)| (group.to_owned(), most));
    ensure!(most == BTreeMap::from(expected), "{most:?}");
    ensure!(flashed(&testbed).await? == [1; 12]);
    Ok(())
}
