//! The Pod as text: it must not contain anything that a restricted cluster rejects.

use flashjob_api::FlashJob;
use flashjob_types::plugin::{Port, Protocol, Scratch, SecretMount};
use serde_json::{Value, json};

use super::*;
use crate::flashjob::grants::SecretGrant;
use crate::flashjob::grants::tests::flash_pod;
use crate::flashjob::make::service;
use crate::flashjob::observed::{Instance, Job};
use crate::flashjob::policy::Policy;
use crate::flashjob::policy::tests::parse;

const CONFIGURATION: &str = "podPolicy: {serviceAccountNames: [flasher]}\n";

fn pod_and_service(
    flash: &FlashPod,
    spec: Value,
    grants: &Grants,
) -> Result<(Value, Value), Denied> {
    made_under(flash, spec, grants, CONFIGURATION)
}

fn made_under(
    flash: &FlashPod,
    spec: Value,
    grants: &Grants,
    configuration: &str,
) -> Result<(Value, Value), Denied> {
    let mut full =
        json!({"uuid": ["device-uid"], "firmware": "registry/firmware:1", "version": "1"});
    json_patch::merge(&mut full, &spec);
    let object = json!({
        "metadata": {"name": "a.job", "namespace": "fleet", "uid": "job-uid"}, "spec": full,
    });
    let job: FlashJob = serde_json::from_value(object).expect("a FlashJob");
    let job = Job::of(job);
    let properties = [("HOST_ENDPOINT", "10.0.0.7")].into_iter();
    let instance = Instance::new(
        "fleet",
        "akri-esp32-123456",
        "device-uid",
        vec!["node-a".into()],
        properties,
    );
    let attempt = Attempt {
        job: &job,
        spec: job.spec.as_ref().expect("valid"),
        uid: "device-uid",
        instance: &instance,
        number: 2,
        plugin: "esp32",
        digest: &format!("sha256:{}", "0".repeat(64)).parse().expect("a digest"),
        flash,
        grants,
        slot: "0123456789ab",
    };
    let policy: Policy = parse(configuration).expect("valid");
    let pod = pod(&attempt, "fj-a-job-0123456789ab", Some("192.0.2.7"), &policy)?;
    let service = service(&attempt, "fj-a-job-0123456789ab", None, &policy);
    Ok((serde_json::to_value(pod).expect("JSON"), serde_json::to_value(service).expect("JSON")))
}

#[test]
fn a_pod_without_wishes_is_within_the_restricted_standard() {
    let (pod, _) =
        pod_and_service(&flash_pod("image"), json!({}), &Grants::default()).expect("made");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "privileged": false, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}
        })
    );
    assert_eq!(
        pod["spec"]["securityContext"],
        json!({"seccompProfile": {"type": "RuntimeDefault"}})
    );
    assert_eq!(pod["spec"]["automountServiceAccountToken"], json!(false));
    assert_eq!(pod["spec"]["restartPolicy"], json!("Never"));
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], json!(900));
    assert_eq!(pod["metadata"]["ownerReferences"][0]["controller"], json!(true));
}

#[test]
fn dollars_of_a_literal_are_doubled_and_the_address_is_filled_in() {
    let flash = FlashPod {
        args: vec![Arg::Literal("$(HOME)".into()), Arg::ExternalAddress],
        env: vec![
            ("A".into(), EnvValue::Literal("$(B) $$".into())),
            ("IP".into(), EnvValue::ExternalAddress),
        ],
        ports: vec![Port { name: "ota".into(), number: 4433, protocol: Protocol::Tcp }],
        ..flash_pod("image")
    };
    let (pod, service) = pod_and_service(&flash, json!({}), &Grants::default()).expect("made");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["$$(HOME)", "192.0.2.7"]));
    assert_eq!(
        container["env"],
        json!([{"name": "A", "value": "$$(B) $$$$"}, {"name": "IP", "value": "192.0.2.7"}])
    );
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "ota", "port": 4433, "protocol": "TCP"}])
    );
    assert_eq!(service["spec"]["publishNotReadyAddresses"], json!(true));
    assert_eq!(
        service["spec"]["selector"]["application.flashjob.nbfc.io/slot"],
        pod["metadata"]["labels"]["application.flashjob.nbfc.io/slot"]
    );
}

#[test]
fn the_working_directory_is_the_plugin_s_as_it_stands_and_else_the_image_s() {
    let flash = FlashPod { working_directory: Some("/kiln/$(HOME)".into()), ..flash_pod("image") };
    let (pod, _) = pod_and_service(&flash, json!({}), &Grants::default()).expect("made");
    // Kubernetes expands nothing here, so a doubled dollar sign would stay doubled.
    assert_eq!(pod["spec"]["containers"][0]["workingDir"], json!("/kiln/$(HOME)"));
    let (pod, _) =
        pod_and_service(&flash_pod("image"), json!({}), &Grants::default()).expect("made");
    assert_eq!(pod["spec"]["containers"][0].get("workingDir"), None);
}

#[test]
fn the_address_without_a_port_is_refused() {
    let flash = FlashPod { args: vec![Arg::ExternalAddress], ..flash_pod("image") };
    assert!(pod_and_service(&flash, json!({}), &Grants::default()).is_err());
}

#[test]
fn overrides_are_merged_and_names_outside_the_allowlist_are_denied() {
    let spec = json!({"podOverrides": {
        "nodeSelector": {"zone": "a"}, "serviceAccountName": "flasher",
        "resources": {"limits": {"cpu": 1, "memory": "64Mi"}},
        "imagePullSecrets": [{"name": "pull"}],
        "tolerations": [{"key": "edge", "operator": "Exists"}]
    }});
    let (pod, _) = pod_and_service(&flash_pod("image"), spec, &Grants::default()).expect("made");
    assert_eq!(pod["spec"]["nodeSelector"], json!({"zone": "a"}));
    assert_eq!(pod["spec"]["serviceAccountName"], json!("flasher"));
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["limits"],
        json!({"cpu": "1", "memory": "64Mi"})
    );
    let denied = pod_and_service(
        &flash_pod("image"),
        json!({"podOverrides": {"serviceAccountName": "admin"}}),
        &Grants::default(),
    );
    assert!(denied.expect_err("denied").0.contains("podPolicy.serviceAccountNames"));
}

#[test]
fn granted_wishes_loosen_that_and_nothing_else() {
    let grants = Grants {
        images: vec!["docker.io/library/image".into()],
        run_as_root: true,
        attach_device: true,
        groups: vec![20],
        capabilities: vec!["NET_BIND_SERVICE".into()],
        secrets: vec![SecretGrant {
            slot: "tls".into(),
            secret_name: "esp32-ota".into(),
            keys: vec!["server.crt".into()],
        }],
    };
    let flash = FlashPod {
        user: User::Root,
        attach_device: true,
        groups: vec![20],
        capabilities: vec!["NET_BIND_SERVICE".into()],
        secrets: vec![SecretMount { slot: "tls".into(), path: "/ota/certs".into() }],
        scratch: vec![Scratch { path: "/work".into(), mebibytes: 16 }],
        env: vec![(
            "CERT".into(),
            EnvValue::SecretKey { slot: "tls".into(), key: "server.crt".into() },
        )],
        deadline_seconds: Some(60),
        ..flash_pod("image")
    };
    let (pod, _) = pod_and_service(&flash, json!({}), &grants).expect("made");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["runAsUser"], json!(0));
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], json!(false));
    assert_eq!(container["resources"]["limits"], json!({"akri.sh/akri-esp32-123456": "1"}));
    assert_eq!(
        container["env"][0]["valueFrom"]["secretKeyRef"],
        json!({"name": "esp32-ota", "key": "server.crt"})
    );
    assert_eq!(pod["spec"]["volumes"][0]["secret"]["secretName"], json!("esp32-ota"));
    assert_eq!(pod["spec"]["volumes"][1]["emptyDir"]["sizeLimit"], json!("16Mi"));
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], json!(60));
    let key = FlashPod {
        env: vec![(
            "KEY".into(),
            EnvValue::SecretKey { slot: "tls".into(), key: "server.key".into() },
        )],
        ..flash_pod("image")
    };
    assert!(
        pod_and_service(&key, json!({}), &grants).expect_err("denied").0.contains("server.key")
    );
}

#[test]
fn autoscalers_are_told_to_leave_a_flashing_device_alone() {
    let (pod, _) = pod_and_service(&flash_pod("i"), json!({}), &Grants::default()).expect("a Pod");
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false");
    assert_eq!(annotations["karpenter.sh/do-not-disrupt"], "true");
    let by_job = json!({"disruption": "Allow"});
    for (spec, configuration) in [(by_job, ""), (json!({}), "pods: {disruption: Allow}\n")] {
        let objects = made_under(&flash_pod("i"), spec, &Grants::default(), configuration);
        let annotations = objects.expect("a Pod").0["metadata"]["annotations"].clone();
        assert_eq!(annotations["karpenter.sh/do-not-disrupt"], Value::Null, "{configuration}");
    }
}

#[test]
fn the_load_balancer_is_asked_for_an_address_in_one_way_alone() {
    let name = "balancer.example.com/ip";
    let requested_address = |annotation: Option<&str>| {
        let by = annotation.map_or_else(String::new, |name| {
            format!("services: {{externalIPAnnotation: {name}}}\n")
        });
        let spec = json!({"externalIP": "192.0.2.9"});
        let objects = made_under(&flash_pod("i"), spec, &Grants::default(), &by);
        let (_, service) = objects.expect("a Service");
        (
            service["spec"]["loadBalancerIP"].clone(),
            service["metadata"]["annotations"][name].clone(),
        )
    };
    assert_eq!(requested_address(None), (json!("192.0.2.9"), Value::Null));
    assert_eq!(requested_address(Some(name)), (Value::Null, json!("192.0.2.9")));
}

#[test]
fn pods_and_services_have_what_the_configuration_demands_and_own_keys_stay() {
    let configuration = r#"
pods:
  labels: {team: iot, site: a}
  annotations: {example.com/owner: fleet}
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 32Mi}}
  readOnlyRootFilesystem: true
  runtimeClassName: kata
services:
  labels: {team: iot}
  annotations: {metallb.io/address-pool: devices}
  loadBalancerClass: example.com/internal
  allocateLoadBalancerNodePorts: false
  externalTrafficPolicy: Local
  ipFamilyPolicy: PreferDualStack
  ipFamilies: [IPv6, IPv4]
  sessionAffinity: ClientIP
podPolicy: {labels: ["team", "line*"]}
"#;
    let limits = json!({"limits": {"memory": "64Mi"}});
    let spec = json!({"podOverrides": {"labels": {"team": "line-7"}, "resources": limits}});
    let (pod, service) =
        made_under(&flash_pod("i"), spec, &Grants::default(), configuration).expect("made");
    let labels = &pod["metadata"]["labels"];
    assert_eq!(
        (&labels["team"], &labels["site"], &labels["app"]),
        (&json!("line-7"), &json!("a"), &json!("a.job"))
    );
    assert_eq!(pod["metadata"]["annotations"]["example.com/owner"], "fleet");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["resources"],
        json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}})
    );
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(pod["spec"]["runtimeClassName"], "kata");
    assert_eq!(pod["spec"]["enableServiceLinks"], false);
    assert_eq!(service["metadata"]["labels"]["team"], "iot");
    assert_eq!(service["metadata"]["annotations"]["metallb.io/address-pool"], "devices");
    let expected = json!({
        "loadBalancerClass": "example.com/internal", "allocateLoadBalancerNodePorts": false,
        "externalTrafficPolicy": "Local",
        "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"],
        "sessionAffinity": "ClientIP",
    });
    for (field, value) in expected.as_object().expect("fields") {
        assert_eq!(&service["spec"][field], value, "{field}");
    }
}

#[test]
fn what_a_job_may_not_ask_for_is_refused_with_the_setting_that_would_allow_it() {
    for (overrides, setting) in [
        (json!({"resources": {"limits": {"example.com/fpga": 1}}}), "podPolicy.resources"),
        (json!({"resources": {"requests": {"akri.sh/akri-b-1": 1}}}), "podPolicy.resources"),
        (json!({"labels": {"team": "a"}}), "podPolicy.labels"),
        (json!({"annotations": {"a": "b"}}), "podPolicy.annotations"),
        (
            json!({"nodeSelector": {"node-role.kubernetes.io/master": ""}}),
            "podPolicy.nodeSelector",
        ),
        (
            json!({
                "tolerations": [{
                    "key": "node-role.kubernetes.io/control-plane", "operator": "Exists",
                }],
            }),
            "podPolicy.tolerations",
        ),
    ] {
        let spec = json!({"podOverrides": overrides});
        let denied =
            pod_and_service(&flash_pod("i"), spec, &Grants::default()).expect_err("denied");
        assert!(denied.0.contains(setting), "{denied}");
    }
}

#[test]
fn a_pod_that_tolerates_every_taint_stays_off_the_control_plane() {
    let spec = json!({"podOverrides": {"tolerations": [{"operator": "Exists"}]}});
    let (pod, _) =
        pod_and_service(&flash_pod("i"), spec.clone(), &Grants::default()).expect("made");
    let required =
        &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"][0]["matchExpressions"].as_array().expect("terms");
    assert!(terms.iter().all(|term| term["operator"] == "DoesNotExist") && terms.len() == 2);
    let allowed = "podPolicy: {tolerations: [\"*\", node-role.kubernetes.io/control-plane]}\n";
    let (pod, _) = made_under(&flash_pod("i"), spec, &Grants::default(), allowed).expect("made");
    assert_eq!(pod["spec"]["affinity"], Value::Null);
}
