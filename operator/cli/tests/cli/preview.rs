//! Tests of `preview`: it shows what the operator then creates; from files alone, too.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use flashjob_api::{FlashJob, FlashJobSpec};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use kube::api::PostParams;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::person::{Person, answer};

/// Longer than any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const FIRMWARE: &str = "harbor.nbfc.io/nubificus/firmware:0.2.0";

/// Removes fields that the API server, the scheduler and the controllers set.
fn without_what_the_server_sets(mut object: Value) -> Value {
    let of_servers = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "generation",
        // The load balancer keeps a Service until the address is released.
        "finalizers",
    ];
    for field in of_servers {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove(field);
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        for field in ["nodeName", "clusterIP", "clusterIPs"] {
            spec.remove(field);
        }
    }
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_exactly_what_the_operator_then_creates() -> anyhow::Result<()> {
    let person = Person::new(&["esp32:thermo:0.1.0=1", "esp32s2:thermo:0.1.0=1"]).await?;
    let client = person.testbed.client.clone();
    person.behave(&Behaviour { transfer_ms: 5000, ..Behaviour::default() }).await?;
    let mut uids = person.uids("esp32")?;
    uids.extend(person.uids("esp32s2")?);
    uids.push("00000000-0000-0000-0000-000000000000".to_owned());
    let spec = FlashJobSpec {
        uuid: uids.clone(),
        firmware: FIRMWARE.to_owned(),
        version: "0.2.0".to_owned(),
        suspend: Some(true),
        ..FlashJobSpec::default()
    };
    person.jobs().create(&PostParams::default(), &FlashJob::new("shown", spec)).await?;
    let config = person.testbed.write_config()?.display().to_string();
    std::fs::write(
        person.folder.path().join("config.json"),
        person.testbed.registry.docker_config(),
    )?;
    let output = person.run(&["preview"])?;
    ensure!(output.code == Some(2) && output.errors.contains("-f"), "{output:?}");
    let output = person.run(&["preview", "shown"])?;
    ensure!(output.code == Some(2) && output.errors.contains("No Deployment of the operator"));
    let preview = |words: &[&str]| {
        let mut command = person.command();
        command.args(["preview", "-o", "json"]).args(words);
        answer(command.env("DOCKER_CONFIG", person.folder.path()), "")
    };
    let output = preview(&["shown", "--config", &config])?;
    // The unknown uid makes the preview fail.
    ensure!(output.code == Some(10), "{output:?}");
    let report = output.json()?;
    let verdicts: Vec<_> = report["devices"].as_array().into_iter().flatten().collect();
    let verdict = |index: usize| verdicts[index]["verdict"].as_str().unwrap_or_default();
    ensure!([verdict(0), verdict(1), verdict(2)] == ["flash", "flash", "fail"], "{report}");
    ensure!(verdicts[2]["reason"] == "UnknownDevice", "{report}");
    let objects = report["objects"].as_array().context("no objects")?.clone();
    // A disruption budget, and for each of two devices a Service and a Pod.
    ensure!(objects.len() == 5, "{report}");
    let output = preview(&["shown", "--config", &config, "--uid", &uids[0][..12]])?;
    ensure!(output.code == Some(0), "{output:?}");
    ensure!(output.json()?["devices"][0]["uid"] == json!(uids[0]), "{output:?}");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut expected = Vec::new();
    for object in &objects {
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        let api = api_of(&client, &object)?;
        expected.push((api.clone(), api.create(&dry, &object).await?));
    }
    ensure!(person.run(&["resume", "shown"])?.code == Some(0));
    let mut actual = Vec::new();
    for (api, expected) in &expected {
        let name = expected.name_any();
        let what = format!("{name} is created");
        actual.push(
            eventually(&what, LIMIT, || async {
                let created_object = api.get_opt(&name).await?;
                let has_address = |object: &DynamicObject| {
                    object.data["spec"]["type"] != "LoadBalancer"
                        || !object.data["status"]["loadBalancer"]["ingress"].is_null()
                };
                Ok(created_object.filter(has_address))
            })
            .await?,
        );
    }
    let address = |slot: &Value| {
        let service = actual.iter().find(|object| {
            object.data["spec"]["type"] == "LoadBalancer"
                && object.data["spec"]["selector"]["application.flashjob.nbfc.io/slot"] == *slot
        })?;
        let ingress = &service.data["status"]["loadBalancer"]["ingress"][0]["ip"];
        ingress.as_str().map(str::to_owned)
    };
    for ((_, expected), actual) in expected.iter().zip(&actual) {
        let slot = json!(actual.labels().get("application.flashjob.nbfc.io/slot"));
        let address = address(&slot).unwrap_or_else(|| "192.0.2.1".to_owned());
        let text = serde_json::to_string(actual)?.replace(&address, "192.0.2.1");
        let actual = without_what_the_server_sets(serde_json::from_str(&text)?);
        let expected = without_what_the_server_sets(serde_json::to_value(expected)?);
        ensure!(actual == expected, "expected:\n{expected:#}\ncreated:\n{actual:#}");
    }
    offline(&person)
}

/// Checks a preview from files alone, without a cluster.
fn offline(person: &Person) -> anyhow::Result<()> {
    let folder = person.folder.path();
    let mut kubectl = Command::new(person.testbed.control_plane.programs.join("kubectl"));
    kubectl.args(["get", "instances.akri.sh", "-o", "yaml"]);
    kubectl.env("KUBECONFIG", &person.testbed.control_plane.kubeconfig);
    std::fs::write(folder.join("instances.yaml"), answer(&mut kubectl, "")?.text)?;
    let output = person.run(&[
        "flash",
        "--type",
        "esp32",
        "--firmware",
        FIRMWARE,
        "--version",
        "0.2.0",
        "--dry-run",
    ])?;
    std::fs::write(folder.join("job.yaml"), output.text)?;
    std::fs::write(folder.join("no-text.yaml"), [0xff, 0xfe, 0])?;
    let output = person.run(&["preview", "-f", "no-text.yaml"])?;
    ensure!(output.code == Some(2) && output.errors.contains("UTF-8"), "{output:?}");
    let job = std::fs::read_to_string(folder.join("job.yaml"))?;
    std::fs::write(folder.join("wrong.yaml"), job.replace(FIRMWARE, "5"))?;
    let output = person.run(&["preview", "-f", "wrong.yaml"])?;
    ensure!(output.code == Some(2), "{output:?}");
    ensure!(output.errors.contains("spec.firmware: it is the number 5; expected"), "{output:?}");
    let plugin = flashjob_testbed::process::repository().join("target/plugins/esp32.wasm");
    let plugin = plugin.display().to_string();
    let preview = |file: &str| {
        let words = ["preview", "-f", file, "--instances", "instances.yaml", "--plugin", &plugin];
        answer(person.command().args(words).env_remove("KUBECONFIG"), "")
    };
    let output = preview("job.yaml")?;
    ensure!(output.code == Some(0), "{output:?}");
    for part in ["flash", "kind: Service", "kind: Pod", "Note: "] {
        ensure!(output.text.contains(part), "{output:?}");
    }
    // What the definition refuses, the preview refuses without an API server.
    let uid = person.uids("esp32")?.pop().context("no device")?;
    std::fs::write(folder.join("upper.yaml"), job.replace(&uid, &uid.to_uppercase()))?;
    let output = preview("upper.yaml")?;
    ensure!(output.code == Some(2), "{output:?}");
    ensure!(output.errors.contains("spec.uuid[0] in body should match '^[a-z0-9]"), "{output:?}");
    // It does so before it asks for a plugin.
    for (name, changed, expected) in [
        ("version", job.replace("/v1alpha1", "/v1"), "not valid: apiVersion: it is"),
        ("kind", job.replace("kind: FlashJob", "kind: Flashjob"), "has no FlashJob: kind is Fl"),
        (
            "name",
            job.replace("name: flashjob", "name: Hall_3"),
            "metadata.name: \"Hall_3\" is not",
        ),
        (
            "address",
            job.replace("\nspec:\n", "\nspec:\n  externalIP: lb.example.com\n"),
            "spec.externalIP: \"lb.example.com\" is not an IP address; give one such as 192.0.2.7",
        ),
    ] {
        let file = format!("{name}.yaml");
        std::fs::write(folder.join(&file), changed)?;
        let words = ["preview", "-f", &file, "--instances", "instances.yaml"];
        let words = [&words[..], &["--plugin", "nowhere.wasm"]].concat();
        let output = person.run(&words)?;
        ensure!(output.code == Some(2) && output.errors.contains(expected), "{output:?}");
    }
    // The firmware's registry is not queried.
    let policed = job.replace("\nspec:\n", "\nspec:\n  firmwarePolicy: {}\n");
    std::fs::write(folder.join("policed.yaml"), policed)?;
    let output = preview("policed.yaml")?;
    ensure!(output.code == Some(0), "{output:?}");
    for part in ["kind: Pod", "Note: spec.firmwarePolicy"] {
        ensure!(output.text.contains(part), "{output:?}");
    }
    Ok(())
}

fn api_of(client: &Client, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
    let kind = object.types.as_ref().context("no kind")?.try_into()?;
    let resource = ApiResource::from_gvk(&kind);
    Ok(Api::namespaced_with(client.clone(), "default", &resource))
}
