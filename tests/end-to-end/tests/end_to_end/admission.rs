//! Objects that the cluster does not admit: at a quota a device waits for its turn, a denial by a
//! policy is final.

use flashjob_api::akri::Instance;
use flashjob_api::{FlashJobStatus, Phase};
use flashjob_end_to_end::rollouts::behave;
use flashjob_end_to_end::{
    LIMIT, apply, create, ended, job, nothing_left, reason_of, status_where, uids,
};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{LimitRange, Pod, ResourceQuota};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

#[tokio::test]
async fn a_quota_delays_a_policy_refuses() -> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=5".into()],
        addresses: 5,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    testbed.start_operator().await?;
    let all = uids(&testbed, "esp32", 5).await?;
    devices_take_turns_at_a_quota(&testbed, &all[..3], "services.loadbalancers").await?;
    devices_take_turns_at_a_quota(&testbed, &all[..3], "pods").await?;
    a_limit_range_is_final(&testbed, &all[3]).await?;
    the_words_of_a_policy_are_the_devices_message(&testbed, &all[4]).await?;
    nothing_left(&testbed).await
}

/// Sets no retries: a device that spent an attempt on the quota would fail.
async fn devices_take_turns_at_a_quota(
    testbed: &Testbed,
    uids: &[String],
    resource: &str,
) -> anyhow::Result<()> {
    let quotas: Api<ResourceQuota> = Api::namespaced(testbed.client.clone(), "default");
    let name = resource.replace('.', "-");
    let hard = json!({"metadata": {"name": name}, "spec": {"hard": {resource: "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(hard)?).await?;
    eventually("the quota counts", LIMIT, || async {
        let status = quotas.get(&name).await?.status;
        Ok(status.and_then(|status| status.used).filter(|used| !used.is_empty()).map(|_| ()))
    })
    .await?;
    // The quota is used up until a device waits for it.
    behave(testbed, &Behaviour::holding()).await?;
    let spec = json!({"backoffLimitPerDevice": 0, "parallelism": 3});
    create(testbed, &job(&name, uids, spec)).await?;
    let waits = |status: &FlashJobStatus| {
        uids.iter().any(|uid| reason_of(status, uid).as_deref() == Some("WaitingForQuota"))
    };
    status_where(testbed, &name, "a device waits for the quota", waits).await?;
    behave(testbed, &Behaviour::default()).await?;
    let status = ended(testbed, &name).await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{resource}: {status:?}");
    quotas.delete(&name, &DeleteParams::default()).await?;
    nothing_left(testbed).await
}

async fn failed_at_once(
    testbed: &Testbed,
    name: &str,
    uid: &str,
    words: &str,
) -> anyhow::Result<()> {
    let uids = [uid.to_owned()];
    let spec = json!({
        "backoffLimitPerDevice": 3, "podOverrides": {"resources": {"limits": {"memory": "64Mi"}}},
    });
    create(testbed, &job(name, &uids, spec)).await?;
    let status = ended(testbed, name).await?;
    let device = status.devices.iter().find(|device| device.uid == uid);
    let reason_and_attempt = device.map(|device| (device.reason.as_deref(), device.attempt));
    assert_eq!(reason_and_attempt, Some((Some("PodRefused"), 1)), "{status:?}");
    let message = device.and_then(|device| device.message.as_deref()).unwrap_or_default();
    assert!(message.contains(words), "{message}");
    Ok(())
}

/// Waits until the API server, which takes a moment to apply a rule, refuses a Pod with these
/// containers.
async fn refuses_pods(testbed: &Testbed, containers: Value) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client.clone(), "default");
    let probe = json!({"metadata": {"name": "probe"}, "spec": {"containers": containers}});
    let probe: Pod = serde_json::from_value(probe)?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    eventually("the rule is in force", LIMIT, || async {
        Ok(pods.create(&dry_run, &probe).await.is_err().then_some(()))
    })
    .await
}

async fn a_limit_range_is_final(testbed: &Testbed, uid: &str) -> anyhow::Result<()> {
    let ranges: Api<LimitRange> = Api::namespaced(testbed.client.clone(), "default");
    let most = json!([{"type": "Container", "max": {"memory": "32Mi"}}]);
    let range = json!({"metadata": {"name": "small"}, "spec": {"limits": most}});
    ranges.create(&PostParams::default(), &serde_json::from_value(range)?).await?;
    let memory = json!({"limits": {"memory": "64Mi"}});
    refuses_pods(testbed, json!([{"name": "a", "image": "a", "resources": memory}])).await?;
    failed_at_once(testbed, "limited", uid, "maximum memory usage per Container is 32Mi").await?;
    ranges.delete("small", &DeleteParams::default()).await?;
    Ok(())
}

async fn the_words_of_a_policy_are_the_devices_message(
    testbed: &Testbed,
    uid: &str,
) -> anyhow::Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(testbed.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(testbed.client.clone());
    let words = "every Pod says which site it is for";
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
    });
    let policy = json!({
        "metadata": {"name": "site"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{
                "expression": "has(object.metadata.annotations) \
                    && 'site' in object.metadata.annotations",
                "message": words,
            }],
        },
    });
    policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
    let binding = json!({
        "metadata": {"name": "site"},
        "spec": {"policyName": "site", "validationActions": ["Deny"]},
    });
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    refuses_pods(testbed, json!([{"name": "a", "image": "a"}])).await?;
    failed_at_once(testbed, "policed", uid, words).await?;
    bindings.delete("site", &DeleteParams::default()).await?;
    Ok(())
}

/// Changes the definition of Instance to that of another version of Akri, or to an edited one.
async fn change_definition(testbed: &Testbed, change: impl Fn(&mut Value)) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(testbed.client.clone());
    let name = "instances.akri.sh";
    let mut definition = serde_json::to_value(definitions.get(name).await?)?;
    change(&mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    let definition = serde_json::from_value(definition)?;
    definitions.replace(name, &PostParams::default(), &definition).await?;
    Ok(())
}

#[tokio::test]
async fn instances_are_taken_as_any_version_of_akri_writes_them() -> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=2".into()],
        addresses: 2,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    testbed.config["periods"]["unknownDeviceSeconds"] = json!(5);
    testbed.start_operator().await?;
    let (first, second) = {
        let devices = testbed.devices().await?;
        (devices[0].clone(), devices[1].clone())
    };
    let instances: Api<DynamicObject> = Api::namespaced_with(
        testbed.client.clone(),
        "default",
        &ApiResource::erase::<Instance>(&()),
    );
    let names = instances.list(&Default::default()).await?.items;
    let name_of = |uid: &str| {
        names.iter().find(|object| object.uid().as_deref() == Some(uid)).map(ResourceExt::name_any)
    };
    // Before 0.13 an Instance had neither capacity nor a name of the Container Device Interface.
    change_definition(&testbed, |schema| {
        let spec = &mut schema["properties"]["spec"];
        spec["required"] = json!(["configurationName"]);
    })
    .await?;
    let name = name_of(&first.0).unwrap_or_default();
    let without = json!([
        {"op": "remove", "path": "/spec/capacity"}, {"op": "remove", "path": "/spec/cdiName"},
    ]);
    let without = Patch::Json::<()>(serde_json::from_value(without)?);
    eventually("the Instance is as an older Akri wrote it", LIMIT, || async {
        Ok(instances.patch(&name, &PatchParams::default(), &without).await.ok().map(|_| ()))
    })
    .await?;
    apply(&testbed, &job("older", std::slice::from_ref(&first.0), json!({}))).await?;
    let status = ended(&testbed, "older").await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    // An Instance that is being deleted is a device that leaves, however long a finalizer holds
    // it.
    let name = name_of(&second.0).unwrap_or_default();
    let finalizers = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    let merge = PatchParams::default();
    instances.patch(&name, &merge, &finalizers(json!(["example.com/held"]))).await?;
    instances.delete(&name, &DeleteParams::default()).await?;
    apply(&testbed, &job("leaving", std::slice::from_ref(&second.0), json!({}))).await?;
    let status = ended(&testbed, "leaving").await?;
    assert_eq!(reason_of(&status, &second.0).as_deref(), Some("UnknownDevice"), "{status:?}");
    let message = status.devices[0].message.clone().unwrap_or_default();
    assert!(message.contains(&format!("{name} is being deleted")), "{message}");
    instances.patch(&name, &merge, &finalizers(json!([]))).await?;
    // An Instance that cannot be decoded is reported by its name.
    change_definition(&testbed, |schema| {
        *schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    })
    .await?;
    let broken = json!({
        "apiVersion": "akri.sh/v0", "kind": "Instance", "metadata": {"name": "scrambled"},
        "spec": {"configurationName": "a", "nodes": "all of them"},
    });
    let broken: DynamicObject = serde_json::from_value(broken)?;
    let instance = eventually("the definition takes anything", LIMIT, || async {
        Ok(instances.create(&PostParams::default(), &broken).await.ok())
    })
    .await?;
    let uid = instance.uid().unwrap_or_default();
    apply(&testbed, &job("scrambled", std::slice::from_ref(&uid), json!({}))).await?;
    let status = ended(&testbed, "scrambled").await?;
    let message = status.devices[0].message.clone().unwrap_or_default();
    assert!(message.contains("scrambled cannot be decoded"), "{message}");
    nothing_left(&testbed).await
}
