//! Every kind of fault of the connection between operator and API server; nothing is lost, nothing
//! is done twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flashjob_end_to_end::counted::Counted;
use flashjob_end_to_end::{LIMIT, jobs, nothing_left, pod_where, runs};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use flashjob_testbed::proxy::{Action, Call};
use flashjob_testbed::{Options, Proxy, Testbed};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// Duration of the API server's outage.
const OUTAGE: Duration = Duration::from_secs(20);
const WATCHED: [&str; 4] = ["flashjobs", "instances", "pods", "services"];

/// One control plane serves all cases: each fault is over before the next begins.
#[tokio::test]
async fn under_faults_of_the_api_server_a_device_is_flashed_as_often_as_its_attempts_say()
-> anyhow::Result<()> {
    let mut options = Options {
        devices: vec!["esp32:thermo:0.1.0=5".into()],
        addresses: 3,
        ..Options::default()
    };
    // After an outage the scheduler takes a while to consider the node ready again, which is not a
    // failure of a device.
    options.periods["unschedulableSeconds"] = json!(60);
    let mut testbed = Testbed::start(&options).await?;
    let proxy = Proxy::start(&mut testbed.control_plane).await?;
    testbed.start_operator().await?;
    every_third_request_is_answered_409(&testbed, &proxy).await?;
    every_third_request_is_answered_429(&testbed, &proxy).await?;
    every_third_request_is_answered_500(&testbed, &proxy).await?;
    every_third_request_is_lost(&testbed, &proxy).await?;
    every_third_answer_is_lost(&testbed, &proxy).await?;
    watches_are_cut_again_and_again(&testbed, &proxy).await?;
    etcd_is_compacted_while_no_watch_stands(&mut testbed, &proxy).await?;
    the_api_server_is_away(&mut testbed).await?;
    nothing_left(&testbed).await
}

fn ended(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .is_some_and(|status| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")))
}

/// Returns true for requests about a FlashJob, not those about plugins or the Lease.
fn of_the_job(call: &Call) -> bool {
    matches!(call.resource.as_str(), "flashjobs" | "flashjobs/status" | "pods" | "services")
        && !call.watch
}

async fn every_third(testbed: &Testbed, proxy: &Proxy, action: Action) -> anyhow::Result<()> {
    let call_count = AtomicUsize::new(0);
    proxy.on(action, u32::MAX, move |call| {
        of_the_job(call) && call_count.fetch_add(1, Ordering::Relaxed) % 3 == 2
    });
    let counted = Counted::begin(testbed, json!({})).await?;
    let ended = counted.end(testbed).await;
    let applied = proxy.clear_rules();
    ended.map_err(|error| {
        error.context(format!("{action:?} for every third request, {applied} so far"))
    })?;
    anyhow::ensure!(applied >= 5, "{action:?}: only {applied} requests met it");
    Ok(())
}

async fn every_third_request_is_answered_409(
    testbed: &Testbed,
    proxy: &Proxy,
) -> anyhow::Result<()> {
    every_third(testbed, proxy, Action::Answer(409)).await
}

async fn every_third_request_is_answered_429(
    testbed: &Testbed,
    proxy: &Proxy,
) -> anyhow::Result<()> {
    every_third(testbed, proxy, Action::Answer(429)).await
}

async fn every_third_request_is_answered_500(
    testbed: &Testbed,
    proxy: &Proxy,
) -> anyhow::Result<()> {
    every_third(testbed, proxy, Action::Answer(500)).await
}

async fn every_third_request_is_lost(testbed: &Testbed, proxy: &Proxy) -> anyhow::Result<()> {
    every_third(testbed, proxy, Action::LoseRequest).await
}

async fn every_third_answer_is_lost(testbed: &Testbed, proxy: &Proxy) -> anyhow::Result<()> {
    every_third(testbed, proxy, Action::LoseAnswer).await
}

async fn watches_are_cut_again_and_again(testbed: &Testbed, proxy: &Proxy) -> anyhow::Result<()> {
    let before = proxy.count(|call| call.watch);
    let counted = Counted::begin(testbed, json!({"parallelism": 2})).await?;
    let cutting = async {
        loop {
            proxy.cut_watches();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        ended = counted.end(testbed) => ended.map_err(|error| error.context("watches were cut"))?,
        () = cutting => {}
    }
    let taken_up = proxy.count(|call| call.watch) - before;
    anyhow::ensure!(taken_up >= 8, "only {taken_up} watches were taken up again");
    Ok(())
}

async fn etcd_is_compacted_while_no_watch_stands(
    testbed: &mut Testbed,
    proxy: &Proxy,
) -> anyhow::Result<()> {
    let lists = |resource: &'static str| proxy.count(move |call| call.lists(resource));
    let before = WATCHED.map(lists);
    let first = testbed.devices().await?.swap_remove(0).1.id;
    testbed.fleet.behave(&first, &Behaviour::holding()).await?;
    let counted = Counted::begin(testbed, json!({"parallelism": 2})).await?;
    let is_first = |pod: &Pod| pod.labels().get("uuid") == Some(&counted.uids[0]);
    let runs_first = |pod: &Pod| runs(pod) && is_first(pod);
    pod_where(testbed, &counted.name, "the first device's runs", runs_first).await?;
    proxy.refuse_connections();
    testbed.fleet.behave(&first, &Behaviour::default()).await?;
    // Pods end while no watch is open. The restarted API server has no history from before the
    // compaction.
    let ends_first = |pod: &Pod| ended(pod) && is_first(pod);
    pod_where(testbed, &counted.name, "it ends unseen", ends_first).await?;
    let touched = Patch::Merge(json!({"metadata": {"annotations": {"touched": "unseen"}}}));
    jobs(testbed).patch(&counted.name, &PatchParams::default(), &touched).await?;
    testbed.control_plane.stop_api_server().await?;
    testbed.control_plane.start_api_server().await?;
    testbed.control_plane.compact().await?;
    proxy.clear_rules();
    counted.end(testbed).await.map_err(|error| error.context("etcd was compacted"))?;
    eventually("everything watched was listed afresh", LIMIT, || async {
        Ok(WATCHED
            .into_iter()
            .zip(before)
            .all(|(resource, before)| lists(resource) > before)
            .then_some(()))
    })
    .await
}

async fn the_api_server_is_away(testbed: &mut Testbed) -> anyhow::Result<()> {
    let counted = Counted::begin(testbed, json!({"parallelism": 2})).await?;
    pod_where(testbed, &counted.name, "it runs", runs).await?;
    testbed.control_plane.stop_api_server().await?;
    // The outage itself is what is tested.
    tokio::time::sleep(OUTAGE).await;
    testbed.control_plane.start_api_server().await?;
    counted.end(testbed).await.map_err(|error| error.context("the API server was away"))
}
