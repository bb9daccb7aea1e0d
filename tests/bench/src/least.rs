//! The minimal client, which sends only the requests that a device needs: create a Service, wait
//! for its address, create a Pod, wait for its end, delete both. It has two watches in all, and
//! stores, locks, asks and retries nothing. It is the baseline for the operator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::audit::Mark;
use crate::case::Case;
use crate::job::{apply_job, delete_job};
use crate::stage::Stage;
use crate::table::Measured;
use crate::usage::Usage;

/// Settings of the process.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    #[arg(long)]
    devices: usize,
    #[arg(long)]
    parallelism: usize,
    /// The FlashJob that owns everything, as for the operator's objects.
    #[arg(long)]
    job: String,
    #[arg(long)]
    job_uid: String,
}

/// Runs the client as a process, and reads its requests from the audit log. No operator runs
/// meanwhile.
pub async fn measure(stage: &mut Stage, case: &Case) -> anyhow::Result<Measured> {
    stage.set_pod_time(case.pod_ms).await?;
    let (name, uids) = (stage.next_name("least"), stage.instances(case.devices).await?);
    let job = apply_job(stage, &name, &uids, json!({"suspend": true})).await?;
    let mark = Mark::at_end(&stage.control_plane.audit_log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["least", "--job", &name, "--job-uid", &job.uid().unwrap_or_default()]);
    command.args([
        "--devices",
        &case.devices.to_string(),
        "--parallelism",
        &case.parallelism.to_string(),
    ]);
    command
        .env("KUBECONFIG", &stage.control_plane.client_kubeconfig)
        .kill_on_drop(true)
        .stderr(std::process::Stdio::inherit());
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "the client of four requests failed");
    let usage: Usage = serde_json::from_slice(&output.stdout)?;
    let log = mark.read()?;
    let first = log
        .of("client")
        .filter(|request| request.what() == "create services")
        .map(|request| request.request_received_timestamp)
        .min();
    let last = log
        .of("client")
        .filter(|request| request.what().starts_with("delete "))
        .map(|request| request.stage_timestamp)
        .max();
    let (first, last) = first.zip(last).context("the audit log has no request of the client")?;
    delete_job(stage, &name).await?;
    Ok(Measured::new(case, &log, "client", last.duration_since(first).as_secs_f64(), usage))
}

/// Flashes that many devices and prints the CPU time and memory that it used.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let client = Client::try_default().await?;
    let services = Waiters::default();
    let pods = Waiters::default();
    follow::<Service>(&client, &settings.job, services.clone(), address);
    follow::<Pod>(&client, &settings.job, pods.clone(), success);
    let (places, settings) = (Arc::new(Semaphore::new(settings.parallelism)), Arc::new(settings));
    let mut tasks = JoinSet::new();
    for number in 0..settings.devices {
        let place = places.clone().acquire_owned().await?;
        let (client, services, pods, settings) =
            (client.clone(), services.clone(), pods.clone(), settings.clone());
        tasks.spawn(async move {
            let done = flash(client, &services, &pods, &settings, number).await;
            drop(place);
            done
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    println!("{}", serde_json::to_string(&Usage::of(None)?)?);
    Ok(())
}

async fn flash(
    client: Client,
    services: &Waiters,
    pods: &Waiters,
    settings: &Settings,
    number: usize,
) -> anyhow::Result<()> {
    let name = format!("fj-{}-{number:012x}", settings.job);
    let uid = format!("00000000-0000-4000-8000-{number:012x}");
    let service_api: Api<Service> = Api::default_namespaced(client.clone());
    let pod_api: Api<Pod> = Api::default_namespaced(client);
    let exposed = services.wait_for(&name);
    service_api
        .create(&PostParams::default(), &serde_json::from_value(service(settings, &name, &uid))?)
        .await?;
    let address = exposed.await?;
    let ended = pods.wait_for(&name);
    pod_api
        .create(
            &PostParams::default(),
            &serde_json::from_value(pod(settings, &name, &uid, &address))?,
        )
        .await?;
    anyhow::ensure!(ended.await? == "Succeeded", "Pod {name} failed");
    let delete = DeleteParams::background();
    tokio::try_join!(pod_api.delete(&name, &delete), service_api.delete(&name, &delete))?;
    Ok(())
}

/// Tasks that wait for a value of an object, by the object's name.
#[derive(Clone, Default)]
struct Waiters(Arc<Mutex<HashMap<String, oneshot::Sender<String>>>>);

impl Waiters {
    fn wait_for(&self, name: &str) -> oneshot::Receiver<String> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), sender);
        receiver
    }

    fn tell(&self, name: &str, what: String) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            let _ = sender.send(what);
        }
    }
}

fn follow<K>(client: &Client, job: &str, waiters: Waiters, read: fn(&K) -> Option<String>)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().labels(&format!("app={job}"));
    let events =
        watcher::watcher(Api::<K>::default_namespaced(client.clone()), config).default_backoff();
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if let Ok(Event::InitApply(object) | Event::Apply(object)) = event
                && let Some(what) = read(&object)
            {
                waiters.tell(&object.name_any(), what);
            }
        }
    });
}

fn address(service: &Service) -> Option<String> {
    service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?.ip.clone()
}

fn success(pod: &Pod) -> Option<String> {
    let phase = pod.status.as_ref()?.phase.clone()?;
    matches!(phase.as_str(), "Succeeded" | "Failed").then_some(phase)
}

/// Returns metadata such as the operator's objects have.
fn metadata(settings: &Settings, name: &str, uid: &str, annotations: &Value) -> Value {
    let group = "application.flashjob.nbfc.io";
    json!({
        "name": name, "annotations": annotations,
        "labels": {
            "app": settings.job, "uuid": uid, (format!("{group}/run")): "0123456789abcdef",
            (format!("{group}/attempt")): "1",
            (format!("{group}/slot")): &name[name.len() - 12..],
        },
        "ownerReferences": [{
            "apiVersion": format!("{group}/v1alpha1"), "kind": "FlashJob", "name": settings.job,
            "uid": settings.job_uid, "controller": true,
        }],
    })
}

/// Returns the Service that the operator creates with the plugin for ESP32.
fn service(settings: &Settings, name: &str, uid: &str) -> Value {
    json!({
        "metadata": metadata(settings, name, uid, &annotations()),
        "spec": {
            "type": "LoadBalancer", "ports": [{"name": "ota", "port": 4433, "protocol": "TCP"}],
            "selector": {
                "app": settings.job, "application.flashjob.nbfc.io/slot": &name[name.len() - 12..],
            },
            "publishNotReadyAddresses": true,
        },
    })
}

/// Returns the Pod that the operator creates with the plugin for ESP32.
fn pod(settings: &Settings, name: &str, uid: &str, address: &str) -> Value {
    let mut annotations = annotations();
    annotations["application.flashjob.nbfc.io/device-identity"] = json!("endpoint/10.0.0.1:80");
    annotations["application.flashjob.nbfc.io/instance"] = json!("akri-esp32-000001");
    let variables = [
        ("FIRMWARE", "harbor.nbfc.io/nubificus/firmware:0.2.0"),
        ("UUID", uid),
        ("HOST_ENDPOINT", "10.0.0.1:80"),
        ("DEVICE", "esp32"),
        ("APPLICATION_TYPE", "thermo"),
        ("VERSION", "0.2.0"),
        ("EXTERNAL_IP", address),
    ];
    let variables: Vec<Value> =
        variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({
        "metadata": metadata(settings, name, uid, &annotations),
        "spec": {
            "restartPolicy": "Never", "activeDeadlineSeconds": 900,
            "terminationGracePeriodSeconds": 10,
            "automountServiceAccountToken": false,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "flash", "image": flashjob_testbed::testbed::FLASHER_IMAGE,
                "env": variables,
                "ports": [{"name": "ota", "containerPort": 4433, "protocol": "TCP"}],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "privileged": false, "runAsNonRoot": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

fn annotations() -> Value {
    json!({
        "application.flashjob.nbfc.io/plugin": "esp32",
        "application.flashjob.nbfc.io/plugin-digest": format!("sha256:{}", "0".repeat(64)),
    })
}
