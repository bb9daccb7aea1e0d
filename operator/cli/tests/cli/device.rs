//! Tests of `plugin run --device`: a plugin is called for a device of a real cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::author::{CommandOutput, command_output, component, plugin};
use flashjob_api::akri::Instance;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::control_plane::ControlPlane;
use flashjob_testbed::process::script;
use flashjob_testbed::testbed::install_crds;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

/// Calls the plugin for a device, with this kubeconfig.
fn ask(kubeconfig: &Path, device: &str, more: &[&str]) -> anyhow::Result<CommandOutput> {
    let esp32 = component("esp32");
    let words = [&["run", &esp32, "--device", device], more].concat();
    let folder = kubeconfig.parent().unwrap_or(Path::new("/"));
    command_output(plugin(&words, folder).env("KUBECONFIG", kubeconfig).output()?)
}

#[tokio::test]
async fn a_plugin_is_asked_about_a_device_of_the_cluster_and_an_unknown_device_is_named()
-> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir()?;
    let programs = PathBuf::from(script("tests/control-plane/build.sh")?);
    let mut plane =
        ControlPlane::start(&programs, folder.path(), &Authority::new(folder.path())?).await?;
    let client = plane.client().await?;
    install_crds(&client).await?;
    let instances: Api<Instance> = Api::namespaced(client, "default");
    let properties = [
        ("APPLICATION_TYPE", "thermo"),
        ("DEVICE", "esp32"),
        ("HOST_ENDPOINT", "10.0.0.7:80"),
        ("ROOM", "7"),
        ("VERSION", "1.4.0"),
    ];
    let instance = json!({
        "apiVersion": "akri.sh/v0", "kind": "Instance", "metadata": {"name": "http-thermo-7"},
        "spec": {
            "configurationName": "http-thermo", "capacity": 1, "cdiName": "akri.sh/http-thermo=7",
            "brokerProperties": BTreeMap::from(properties),
            "nodes": ["edge-1", "edge-2"], "shared": true,
        },
    });
    let created =
        instances.create(&PostParams::default(), &serde_json::from_value(instance)?).await?;

    // The namespace is the kubeconfig's.
    let ran = ask(&plane.kubeconfig, "http-thermo-7", &[])?.good()?;
    let device = &ran["request"]["device"];
    assert_eq!(
        (&device["name"], &device["uid"]),
        (&json!("http-thermo-7"), &json!(created.metadata.uid)),
        "{device}"
    );
    assert_eq!(
        (&device["deviceType"], &device["endpoint"]),
        (&json!("esp32"), &json!("10.0.0.7:80")),
        "{device}"
    );
    assert_eq!(
        (&device["applicationType"], &device["reportedVersion"]),
        (&json!("thermo"), &json!("1.4.0")),
        "{device}"
    );
    assert_eq!(
        (&device["properties"], &device["nodes"]),
        (&json!(properties), &json!(["edge-1", "edge-2"])),
        "{device}"
    );
    assert_eq!(ran["request"]["namespace"], "default");
    assert_eq!(ran["pod"]["metadata"]["namespace"], "default", "{}", ran["pod"]);

    // Values on the command line override those of the cluster.
    let ran = ask(
        &plane.kubeconfig,
        "http-thermo-7",
        &["--endpoint", "10.0.0.8:80", "--property", "ROOM="],
    )?
    .good()?;
    assert_eq!(ran["request"]["device"]["endpoint"], "10.0.0.8:80");
    let rest = properties
        .map(|(name, value)| (name, if name == "HOST_ENDPOINT" { "10.0.0.8:80" } else { value }));
    let rest: Vec<_> = rest.into_iter().filter(|(name, _)| *name != "ROOM").collect();
    assert_eq!(ran["request"]["device"]["properties"], json!(rest));

    let unknown =
        "there is no Akri Instance default/http-thermo-8; see kubectl get instances.akri.sh -A";
    ask(&plane.kubeconfig, "http-thermo-8", &[])?.failed(3, "NotFound", unknown);
    let elsewhere = "there is no Akri Instance other/http-thermo-7;";
    ask(&plane.kubeconfig, "http-thermo-7", &["--namespace", "other"])?
        .failed(3, "NotFound", elsewhere);
    // A user without rights, and one with an unknown token.
    let unread = "cannot read Akri Instance default/http-thermo-7";
    ask(&plane.client_kubeconfig, "http-thermo-7", &[])?.failed(3, "AccessDenied", unread);
    let mut stranger: Value = serde_json::from_slice(&std::fs::read(&plane.kubeconfig)?)?;
    stranger["users"][0]["user"] = json!({"token": "nobody's"});
    let stranger_kubeconfig = folder.path().join("stranger.kubeconfig");
    std::fs::write(&stranger_kubeconfig, stranger.to_string())?;
    ask(&stranger_kubeconfig, "http-thermo-7", &[])?.failed(
        3,
        "AccessDenied",
        "needs the verb get on instances.akri.sh",
    );
    plane.stop_api_server().await?;
    ask(&plane.kubeconfig, "http-thermo-7", &[])?.failed(3, "ClusterUnreachable", unread);
    Ok(())
}
