//! The Helm chart on a real API server: every object that it renders is valid, whatever the
//! values. It is installed, upgraded, rolled back and uninstalled, and FlashJobs survive. A test
//! on a real node (tests/node) shows that the operator works when installed by it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};
use flashjob_end_to_end::{create, job, jobs};
use flashjob_testbed::process::{repository, script};
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Namespace and name of the release.
const RELEASE: &str = "flashjob-operator";
const NAMESPACE: &str = "flashjob-system";

struct Helm<'a> {
    testbed: &'a Testbed,
    program: PathBuf,
}

impl Helm<'_> {
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let helm_home = self.testbed.folder().join("helm");
        command.args(arguments).current_dir(repository()).kill_on_drop(true);
        command.env("KUBECONFIG", &self.testbed.control_plane.kubeconfig);
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(folder, &helm_home);
        }
        command
    }

    /// Runs helm with values on its standard input; returns its output, or its error.
    async fn run(&self, arguments: &[&str], values: &Value) -> anyhow::Result<String> {
        let mut command = self.command(&self.program.display().to_string(), arguments);
        piped(&mut command, &values.to_string()).await
    }

    async fn chart(&self, verb: &str, values: &Value) -> anyhow::Result<String> {
        let common = [verb, RELEASE, "deploy/chart", "--namespace", NAMESPACE, "--values", "-"];
        self.run(&common, values).await
    }

    /// Has the API server validate objects without creating them.
    async fn is_valid(&self, objects: &str) -> anyhow::Result<()> {
        let kubectl = self.testbed.control_plane.programs.join("kubectl").display().to_string();
        let arguments =
            ["apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-"];
        piped(&mut self.command(&kubectl, &arguments), objects).await.map(|_| ())
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.testbed.client.clone(), NAMESPACE)
    }
}

async fn piped(command: &mut Command, input: &str) -> anyhow::Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{stderr}");
    Ok(stdout.into_owned())
}

fn configured() -> Value {
    json!({
        "plugins": [{"name": "esp32", "image": "harbor.example.com/flashjob/esp32:0.1.0"}],
        "registries": [{
            "host": "harbor.example.com", "credentials": {"secretName": "robot"},
            "caFile": "/etc/flashjob/ca.pem",
        }],
        "trust": [{"match": "harbor.example.com/flashjob/**", "allowUnsigned": true}],
        "config": {"periods": {"retrySeconds": 5}},
        "caBundles": {"ca.pem": "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"},
    })
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = std::fs::read_to_string(repository().join("deploy/chart/Chart.yaml"));
    let chart: Value = serde_saphyr::from_str(&chart.expect("Chart.yaml")).expect("YAML");
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field} of Chart.yaml");
    }
}

#[test]
fn the_manifests_and_the_images_have_the_version_of_the_program() {
    for (file, before) in [
        ("deploy/manager/manager.yaml", "image: flashjob-operator:"),
        ("deploy/kustomization.yaml", "newTag: "),
        ("Dockerfile", "ARG VERSION="),
    ] {
        let text = std::fs::read_to_string(repository().join(file)).expect(file);
        let version = text.lines().find_map(|line| line.trim().strip_prefix(before));
        assert_eq!(version, Some(env!("CARGO_PKG_VERSION")), "{before} of {file}");
    }
}

#[tokio::test]
async fn the_chart_makes_valid_objects_and_is_installed_changed_rolled_back_and_removed()
-> anyhow::Result<()> {
    let testbed = Testbed::start(&Options { devices: Vec::new(), ..Options::default() }).await?;
    let helm = Helm { testbed: &testbed, program: script("tests/helm/build.sh")?.into() };
    helm.run(&["lint", "--strict", "deploy/chart"], &json!({})).await?;
    whatever_the_values_the_objects_are_valid(&helm).await?;
    values_that_are_wrong_are_refused_by_name(&helm).await?;
    names_are_unique_and_short_enough(&helm).await?;
    a_release_takes_over_what_was_there_and_leaves_the_jobs(&helm).await?;
    releases_of_one_name_in_two_namespaces_share_no_object(&helm).await?;
    a_second_installation_that_would_not_act_or_act_twice_is_refused(&helm).await
}

async fn whatever_the_values_the_objects_are_valid(helm: &Helm<'_>) -> anyhow::Result<()> {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let matrix = [
        json!({}),
        configured(),
        json!({
            "image": {"repository": "registry.example/operator", "tag": "1", "digest": digest},
            "imagePullSecrets": [{"name": "robot"}],
        }),
        json!({
            "replicas": 1, "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"a": "b"}, "tolerations": [{"key": "edge", "operator": "Exists"}],
        }),
        json!({
            "replicas": 3, "podDisruptionBudget": {"minAvailable": "50%"},
            "podLabels": {"team": "iot"}, "podAnnotations": {"a": "1"}, "annotations": {"b": "2"},
        }),
        json!({
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{
                            "matchExpressions": [{"key": "a", "operator": "Exists"}],
                        }],
                    },
                },
            },
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"a": "b"}},
            }],
        }),
        json!({
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
            "extraVolumes": [{"name": "more", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        }),
        json!({
            "serviceAccount": {"create": false, "name": "given"}, "rbac": {"create": false},
            "crds": {"enabled": false},
        }),
        json!({
            "serviceAccount": {"name": "own", "annotations": {"a": "b"}},
            "rbac": {"scope": "Namespaces"}, "watchNamespace": "default",
        }),
        json!({
            "metrics": {"service": {"enabled": true, "labels": {"a": "b"}}},
            "networkPolicy": {"enabled": true}, "existingConfigMap": "mine",
        }),
        // Keys that a person left without a value.
        json!({
            "config": null, "caBundles": null, "files": null, "metrics": null,
            "networkPolicy": null, "podLabels": null, "nameOverride": null, "image": {"tag": null},
            "plugins": configured()["plugins"],
        }),
        json!({"podSecurityContext": {"runAsUser": null, "fsGroup": null}}),
        json!({
            "fullnameOverride": "flash", "crds": {"keep": false}, "global": {"a": 1},
            "enabled": true, "files": {"cosign.pub": "key"},
        }),
    ];
    for values in matrix {
        // In a namespace that exists, so that the API server can validate every object.
        let arguments =
            ["template", "x", "deploy/chart", "--namespace", "default", "--values", "-"];
        let objects = helm.run(&arguments, &values).await.context(values.to_string())?;
        helm.is_valid(&objects).await.context(values.to_string())?;
    }
    Ok(())
}

async fn values_that_are_wrong_are_refused_by_name(helm: &Helm<'_>) -> anyhow::Result<()> {
    let mut twice = configured();
    twice["config"]["trust"] = json!([]);
    let mut mine_too = configured();
    mine_too["existingConfigMap"] = json!("mine");
    for (values, named) in [
        (json!({"replicaCount": 2}), "replicaCount"),
        (json!({"image": {"name": "a"}}), "name"),
        (json!({"image": {"digest": "sha256:12"}}), "digest"),
        (json!({"rbac": {"scope": "All"}}), "scope"),
        (json!({"rbac": null}), "missing property 'rbac'"),
        (json!({"crds": {"keep": null}}), "missing property 'keep'"),
        (json!({"plugins": [{"name": "esp32"}]}), "image"),
        (json!({"caBundles": {"config.yaml": "x"}}), "config.yaml"),
        (json!({"watchNamespace": "fleet"}), "rbac.scope"),
        (twice, "trust is given twice"),
        (mine_too, "existingConfigMap"),
    ] {
        let refused = helm.chart("template", &values).await;
        let error = refused.err().with_context(|| format!("{values} is taken"))?.to_string();
        ensure!(error.contains(named), "{values}: {error}");
    }
    Ok(())
}

/// Checks that releases whose namespace and name give the same words share no name outside their
/// namespace, and that the longest name of a release is short enough for every object.
async fn names_are_unique_and_short_enough(helm: &Helm<'_>) -> anyhow::Result<()> {
    let values = json!({
        "metrics": {"service": {"enabled": true}}, "rbac": {"scope": "Namespaces"},
    });
    let template = async |release: &str, namespace: &str| {
        let arguments =
            ["template", release, "deploy/chart", "--namespace", namespace, "--values", "-"];
        helm.run(&arguments, &values).await
    };
    let mut names = BTreeSet::new();
    let releases = [
        ("flashjob-operator", "flashjob"),
        ("flashjob-operator", "operator"),
        ("c", "a-b"),
        ("b-c", "a"),
    ];
    for (release, namespace) in releases {
        let objects: Vec<Value> =
            serde_saphyr::from_multiple(&template(release, namespace).await?)?;
        let role = objects.iter().find(|object| object["kind"] == "ClusterRole");
        let name = role.and_then(|role| role["metadata"]["name"].as_str()).context("no name")?;
        ensure!(names.insert(name.to_owned()), "{release} in {namespace}: {name} is not unique");
    }
    // Helm refuses longer names.
    let objects = template(&"r".repeat(53), "default").await?;
    helm.is_valid(&objects).await
}

/// Checks that a release adopts the testbed's definitions, which exist without Helm's metadata, as
/// the Go operator and kubectl leave them.
async fn a_release_takes_over_what_was_there_and_leaves_the_jobs(
    helm: &Helm<'_>,
) -> anyhow::Result<()> {
    let testbed = helm.testbed;
    let uid = "00000000-0000-0000-0000-000000000001".to_owned();
    create(testbed, &job("before", &[uid], json!({}))).await?;
    let common = ["install", RELEASE, "deploy/chart", "--namespace", NAMESPACE, "--values", "-"];
    let arguments =
        [&common[..], &["--create-namespace", "--take-ownership", "--force-conflicts"]].concat();
    let notes = helm.run(&arguments, &json!({})).await?;
    ensure!(notes.contains("It has no configuration yet"), "{notes}");
    let name = "flashjob-operator-config";
    let config_maps = helm.config_maps();
    ensure!(config_maps.get_opt(name).await?.is_none(), "there is nothing to configure");

    let notes = helm.chart("upgrade", &configured()).await?;
    ensure!(notes.contains("create secret docker-registry robot"), "{notes}");
    let data = config_maps.get(name).await?.data.unwrap_or_default();
    let config: Value = serde_saphyr::from_str(&data["config.yaml"])?;
    let mut expected = json!({
        "apiVersion": "config.flashjob.nbfc.io/v1alpha1", "kind": "OperatorConfig",
        "periods": {"retrySeconds": 5},
    });
    for field in ["plugins", "registries", "trust"] {
        expected[field] = configured()[field].take();
    }
    ensure!(config == expected, "{config}");
    ensure!(data["ca.pem"].starts_with("-----BEGIN"), "{data:?}");
    let deployments: Api<Deployment> = Api::namespaced(testbed.client.clone(), NAMESPACE);
    let volumes = deployments.get(RELEASE).await?.spec.and_then(|spec| spec.template.spec);
    let mounted = volumes.and_then(|spec| spec.volumes).unwrap_or_default();
    let mounted = mounted.iter().filter_map(|volume| volume.config_map.as_ref()).next();
    ensure!(mounted.is_some_and(|mounted| mounted.name == name), "{mounted:?}");

    helm.run(&["rollback", RELEASE, "1", "--namespace", NAMESPACE], &json!({})).await?;
    ensure!(config_maps.get_opt(name).await?.is_none(), "the first release had none");
    helm.run(&["uninstall", RELEASE, "--namespace", NAMESPACE], &json!({})).await?;
    ensure!(deployments.get_opt(RELEASE).await?.is_none(), "the operator is gone");
    ensure!(jobs(testbed).get_opt("before").await?.is_some(), "the FlashJob stays");
    // The release owns the definitions that it left behind, so a new one needs no
    // `--take-ownership`.
    helm.chart("install", &json!({})).await?;
    helm.run(&["uninstall", RELEASE, "--namespace", NAMESPACE], &json!({})).await?;
    Ok(())
}

async fn releases_of_one_name_in_two_namespaces_share_no_object(
    helm: &Helm<'_>,
) -> anyhow::Result<()> {
    let common =
        ["install", RELEASE, "deploy/chart", "--create-namespace", "--values", "-", "--namespace"];
    for namespace in ["site-a", "site-b"] {
        let values = json!({"rbac": {"scope": "Namespaces"}, "crds": {"enabled": false}});
        helm.run(&[&common[..], &[namespace]].concat(), &values).await.context(namespace)?;
    }
    let roles: Api<ClusterRole> = Api::all(helm.testbed.client.clone());
    for namespace in ["site-a", "site-b"] {
        helm.run(&["uninstall", RELEASE, "--namespace", namespace], &json!({})).await?;
    }
    let remaining_roles = roles.list(&Default::default()).await?.items.into_iter();
    let remaining_names: Vec<_> = remaining_roles.filter_map(|role| role.metadata.name).collect();
    ensure!(!remaining_names.iter().any(|name| name.starts_with("site-")), "{remaining_names:?}");
    Ok(())
}

async fn a_second_installation_that_would_not_act_or_act_twice_is_refused(
    helm: &Helm<'_>,
) -> anyhow::Result<()> {
    helm.chart("install", &json!({})).await?;
    let own_namespace = json!({"rbac": {"scope": "Namespaces"}, "crds": {"enabled": false}});
    for (namespace, values, named) in [
        (NAMESPACE, own_namespace, "share the Lease"),
        ("site-c", json!({"crds": {"enabled": false}}), "the FlashJobs of all namespaces"),
    ] {
        let arguments = [
            "install",
            "second",
            "deploy/chart",
            "--create-namespace",
            "--namespace",
            namespace,
            "--values",
            "-",
        ];
        let refused = helm.run(&arguments, &values).await;
        let error = refused.err().with_context(|| format!("{namespace} is taken"))?.to_string();
        ensure!(error.contains(named) && error.contains(RELEASE), "{error}");
    }
    // The release itself is no second one.
    helm.chart("upgrade", &json!({})).await?;
    helm.run(&["uninstall", RELEASE, "--namespace", NAMESPACE], &json!({})).await?;
    Ok(())
}
