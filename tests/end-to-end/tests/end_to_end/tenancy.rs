//! Isolation of tenants: the author of a FlashJob, who may only create FlashJobs in one namespace,
//! reaches no device, node or right of another.

use anyhow::Context;
use flashjob_api::{FlashJob, FlashJobStatus, Phase};
use flashjob_end_to_end::{LIMIT, job};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// Namespace of the author; the devices' simulator has its Instances in `default`.
const TEAM: &str = "team-a";

async fn make(testbed: &Testbed, kind: &ApiResource, object: Value) -> anyhow::Result<String> {
    let api: Api<DynamicObject> = Api::namespaced_with(testbed.client.clone(), TEAM, kind);
    let object = serde_json::from_value(object)?;
    Ok(api.create(&PostParams::default(), &object).await?.uid().unwrap_or_default())
}

/// Creates an Instance in the author's namespace; returns its uid.
async fn instance(testbed: &Testbed, name: &str, endpoint: &str) -> anyhow::Result<String> {
    let properties = json!({
        "HOST_ENDPOINT": endpoint, "DEVICE": "esp32", "APPLICATION_TYPE": "thermo",
        "VERSION": "0.1.0",
    });
    let kind = ApiResource::erase::<flashjob_api::akri::Instance>(&());
    let object = json!({
        "apiVersion": "akri.sh/v0", "kind": "Instance", "metadata": {"name": name},
        "spec": {
            "configurationName": "c", "capacity": 1, "cdiName": format!("akri.sh/c={name}"),
            "nodes": ["simulated-node"], "brokerProperties": properties,
        },
    });
    make(testbed, &kind, object).await
}

async fn start(testbed: &Testbed, name: &str, uid: &str, spec: Value) -> anyhow::Result<()> {
    let mut object = job(name, &[uid.to_owned()], spec);
    object["metadata"]["namespace"] = json!(TEAM);
    make(testbed, &ApiResource::erase::<FlashJob>(&()), object).await.map(|_| ())
}

async fn status_where(
    testbed: &Testbed,
    name: &str,
    holds: impl Fn(&FlashJobStatus) -> bool,
) -> anyhow::Result<FlashJobStatus> {
    let jobs: Api<FlashJob> = Api::namespaced(testbed.client.clone(), TEAM);
    let what = format!("FlashJob {TEAM}/{name}");
    let outcome = eventually(&what, LIMIT, || async {
        Ok(jobs.get(name).await?.status.filter(|status| holds(status)))
    });
    match outcome.await {
        Ok(status) => Ok(status),
        Err(error) => Err(error.context(format!("{:?}", jobs.get(name).await?.status))),
    }
}

fn over(status: &FlashJobStatus) -> bool {
    matches!(status.phase, Some(Phase::Completed | Phase::Failed))
}

async fn testbed(namespaces: &str) -> anyhow::Result<Testbed> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=2".into()],
        addresses: 2,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    let team = json!({"metadata": {"name": TEAM}});
    let all: Api<Namespace> = Api::all(testbed.client.clone());
    all.create(&PostParams::default(), &serde_json::from_value(team)?).await?;
    testbed.config["instances"] = json!({"namespaces": namespaces});
    testbed.config["plugins"][0]["grants"] =
        json!({"images": ["harbor.nbfc.io/nubificus/**"], "runAsRoot": true});
    testbed.start_operator().await?;
    Ok(testbed)
}

#[tokio::test]
async fn an_author_reaches_no_device_node_or_right_that_is_not_theirs() -> anyhow::Result<()> {
    let testbed = testbed("Same").await?;
    let (_, foreign) = testbed.devices().await?[0].clone();
    let (host, port) = foreign.endpoint.rsplit_once(':').context("an endpoint")?;
    assert_eq!(host, "127.0.0.1", "the spellings below are of this address");
    let own_uid = instance(&testbed, "own", "127.0.0.1:9").await?;
    let overrides = |what: Value| json!({"podOverrides": what});
    let settings = json!({"esp32": {"runAsRoot": true}});
    let root = |image: &str| json!({"flashjobPodImage": image, "settings": settings});
    let at = |host: &str| json!({"hostEndpoint": format!("{host}:{port}")});
    let tries = [
        ("plain", at("127.0.0.1"), "DeviceNotAllowed"),
        ("decimal", at("2130706433"), "DeviceNotAllowed"),
        ("hexadecimal", at("0x7F000001"), "DeviceNotAllowed"),
        ("octal", at("0177.0.0.1"), "DeviceNotAllowed"),
        ("short", at("127.1"), "DeviceNotAllowed"),
        ("mapped", at("[::FFFF:127.0.0.1]"), "DeviceNotAllowed"),
        ("mapped-hex", at("[::ffff:7f00:1]"), "DeviceNotAllowed"),
        ("user", at("http://own@127.0.0.1"), "DeviceNotAllowed"),
        ("dot", at("127.0.0.1."), "DeviceNotAllowed"),
        ("name", at("localhost"), "DeviceNotAllowed"),
        (
            "fpga",
            overrides(json!({
                "resources": {
                    "requests": {"example.com/fpga": 1}, "limits": {"example.com/fpga": 1},
                },
            })),
            "GrantDenied",
        ),
        (
            "akri",
            overrides(json!({"resources": {"limits": {"akri.sh/akri-esp32-000000": 1}}})),
            "GrantDenied",
        ),
        (
            "control-plane",
            overrides(json!({
                "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
                "tolerations": [{"operator": "Exists"}],
            })),
            "GrantDenied",
        ),
        (
            "master",
            overrides(json!({
                "tolerations": [{"key": "node-role.kubernetes.io/master", "operator": "Exists"}],
            })),
            "GrantDenied",
        ),
        ("labels", overrides(json!({"labels": {"app": "other"}})), "GrantDenied"),
        ("image-dots", root("harbor.nbfc.io/nubificus/../evil/a:1"), "GrantDenied"),
        ("image-escaped", root("harbor.nbfc.io/nubificus/%2e%2e/evil/a:1"), "GrantDenied"),
        ("image-at", root("harbor.nbfc.io/nubificus/a@evil.example/b:1"), "GrantDenied"),
    ];
    for (name, spec, _) in &tries {
        start(&testbed, name, &own_uid, spec.clone()).await.with_context(|| (*name).to_owned())?;
    }
    for (name, _, reason) in tries {
        let status = status_where(&testbed, name, over).await?;
        assert_eq!(status.devices[0].reason.as_deref(), Some(reason), "{name}: {status:?}");
    }
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), TEAM);
    assert!(pods.list(&ListParams::default()).await?.items.is_empty(), "no Pod was made");
    assert!(testbed.fleet.reports().await?.iter().all(|report| report.updates == 0));
    Ok(())
}

#[tokio::test]
async fn two_jobs_of_two_namespaces_are_never_at_one_device_by_different_spellings()
-> anyhow::Result<()> {
    let testbed = testbed("All").await?;
    let (uid, report) = testbed.devices().await?[0].clone();
    let (_, port) = report.endpoint.rsplit_once(':').context("an endpoint")?;
    testbed.fleet.behave(&report.id, &Behaviour::holding()).await?;
    let twin = instance(&testbed, "twin", "127.0.0.1:9").await?;
    let mapped = json!({
        "hostEndpoint": format!("http://[::ffff:127.0.0.1]:{port}/"), "verify": {"mode": "None"},
    });
    flashjob_end_to_end::create(&testbed, &job("first", &[uid], json!({}))).await?;
    let at_work =
        |status: &FlashJobStatus| status.devices.iter().any(|device| device.pod.is_some());
    flashjob_end_to_end::status_where(&testbed, "first", "it is at work", at_work).await?;
    start(&testbed, "second", &twin, mapped).await?;
    let busy = |status: &FlashJobStatus| {
        status.devices.iter().any(|device| device.reason.as_deref() == Some("DeviceBusy"))
    };
    status_where(&testbed, "second", busy).await?;
    testbed.fleet.behave(&report.id, &Behaviour::default()).await?;
    let first = flashjob_end_to_end::ended(&testbed, "first").await?;
    assert_eq!(first.phase, Some(Phase::Completed), "{first:?}");
    status_where(&testbed, "second", over).await?;
    let reports = testbed.fleet.reports().await?;
    assert!(reports.iter().all(|report| report.conflicts == 0), "{reports:?}");
    Ok(())
}
