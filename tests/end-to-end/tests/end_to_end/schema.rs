//! Objects that the real API server accepts, and objects that it rejects. One control plane serves
//! all cases; no operator is needed.

use anyhow::Context;
use flashjob_end_to_end::{apply, create, examples, jobs, raw_jobs, strict_dry_run};
use flashjob_testbed::process::repository;
use flashjob_testbed::{Options, Testbed};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

fn job(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "application.flashjob.nbfc.io/v1alpha1", "kind": "FlashJob",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

fn with(changes: Value) -> Value {
    let mut spec = json!({
        "uuid": ["d95c7c2d-7dc5-427b-9bf7-51a5d299c99e"],
        "firmware": "harbor.nbfc.io/nubificus/esp32:1", "version": "0.2.0",
    });
    json_patch::merge(&mut spec, &changes);
    spec
}

#[tokio::test]
async fn samples_are_taken_and_each_broken_rule_is_refused_by_its_field() -> anyhow::Result<()> {
    let testbed = Testbed::start(&Options { plugins: Vec::new(), ..Options::default() }).await?;
    the_samples_apply_unchanged_in_every_way(&testbed).await?;
    the_documented_jobs_are_taken_as_they_are(&testbed).await?;
    every_broken_rule_names_its_field(&testbed).await?;
    every_optional_field_may_be_null(&testbed).await?;
    the_largest_job_is_taken(&testbed).await
}

async fn the_samples_apply_unchanged_in_every_way(testbed: &Testbed) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(repository().join("deploy/samples"))? {
        let path = entry?.path();
        let sample: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path)?)?;
        if sample["kind"] != "FlashJob" {
            continue;
        }
        let name = sample["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        create(testbed, &sample).await?;
        raw_jobs(testbed).patch(&name, &PatchParams::default(), &Patch::Merge(&sample)).await?;
        apply(testbed, &sample).await?;
        jobs(testbed).delete(&name, &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn the_documented_jobs_are_taken_as_they_are(testbed: &Testbed) -> anyhow::Result<()> {
    let mut count = 0;
    for page in ["docs/hardware.md", "docs/flasher.md"] {
        for job in examples(&std::fs::read_to_string(repository().join(page))?, "FlashJob")? {
            let name = job["metadata"]["name"].as_str().unwrap_or_default();
            let outcome =
                raw_jobs(testbed).patch(name, &strict_dry_run(), &Patch::Apply(&job)).await;
            outcome.with_context(|| format!("{page}: FlashJob {name}"))?;
            count += 1;
        }
    }
    assert_eq!(count, 3, "one of each family of devices in docs/hardware.md that is not ESP32");
    Ok(())
}

async fn every_broken_rule_names_its_field(testbed: &Testbed) -> anyhow::Result<()> {
    let long = "x".repeat(64);
    let many: Vec<String> = (0..4097).map(|index| format!("uid-{index}")).collect();
    let broken = [
        (json!({"uuid": null}), "spec.uuid"),
        (json!({"uuid": []}), "spec.uuid"),
        (json!({"uuid": [""]}), "spec.uuid[0]"),
        (json!({"uuid": [long]}), "spec.uuid[0]"),
        (json!({"uuid": many}), "spec.uuid"),
        (json!({"uuid": ["with blank"]}), "spec.uuid[0]"),
        (json!({"uuid": ["a", "-b"]}), "spec.uuid[1]"),
        (json!({"uuid": ["3F0C8E1A-44d2-4b7e-9a51-0c6d1e2f3a4b"]}), "spec.uuid[0]"),
        (json!({"firmware": "harbor.nbfc.io/a b:1"}), "spec.firmware"),
        (json!({"version": "0.2.0\n"}), "spec.version"),
        (json!({"version": "0.2.0\u{a0}"}), "spec.version"),
        (json!({"version": "0.2.0\u{200b}"}), "spec.version"),
        (json!({"version": "0.2.0\u{3164}"}), "spec.version"),
        (json!({"version": "0.2.0\u{e0100}"}), "spec.version"),
        (json!({"firmware": "\u{feff}harbor.nbfc.io/a:1"}), "spec.firmware"),
        (json!({"hostEndpoint": " 10.0.0.7"}), "spec.hostEndpoint"),
        (json!({"externalIP": "lb.example.com"}), "externalIP must be an IP address"),
        (json!({"externalIP": "192.0.2.300"}), "externalIP must be an IP address"),
        (json!({"firmware": null}), "spec.firmware"),
        (json!({"firmware": ""}), "spec.firmware"),
        (json!({"version": null}), "spec.version"),
        (json!({"version": ""}), "spec.version"),
        (json!({"version": 1}), "spec.version"),
        (
            json!({"uuid": ["a", "b"], "hostEndpoint": "10.0.0.7"}),
            "hostEndpoint may only be set with exactly one uuid",
        ),
        (json!({"parallelism": 0}), "spec.parallelism"),
        (json!({"parallelism": 501}), "spec.parallelism"),
        (json!({"suspend": "yes"}), "spec.suspend"),
        (json!({"backoffLimitPerDevice": -1}), "spec.backoffLimitPerDevice"),
        (json!({"maxFailedDevices": -1}), "maxFailedDevices must be a number"),
        (json!({"maxFailedDevices": "5"}), "maxFailedDevices must be a number"),
        (json!({"maxFailedDevices": "101%"}), "maxFailedDevices must be a number"),
        (json!({"deviceTimeoutSeconds": 0}), "spec.deviceTimeoutSeconds"),
        (json!({"addressTimeoutSeconds": 0}), "spec.addressTimeoutSeconds"),
        (json!({"activeDeadlineSeconds": 0}), "spec.activeDeadlineSeconds"),
        (json!({"verify": {"mode": "Perhaps"}}), "spec.verify.mode"),
        (json!({"verify": {"timeoutSeconds": 0}}), "spec.verify.timeoutSeconds"),
        (json!({"exposure": "Shared"}), "spec.exposure"),
        (json!({"ttlSecondsAfterFinished": -1}), "spec.ttlSecondsAfterFinished"),
        (json!({"settings": {"esp32": "text"}}), "spec.settings.esp32"),
        (
            json!({"podOverrides": {"tolerations": [{"operator": "Maybe"}]}}),
            "spec.podOverrides.tolerations[0].operator",
        ),
    ];
    for (index, (changes, field)) in broken.into_iter().enumerate() {
        let excerpt = changes.to_string().chars().take(80).collect::<String>();
        let refused = create(testbed, &job(&format!("broken-{index}"), with(changes))).await;
        let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(field), "{excerpt}: expected {field:?} in {error:?}");
    }
    let refused = create(testbed, &job(&"n".repeat(64), with(json!({})))).await;
    assert!(refused.is_err_and(|error| {
        error.to_string().contains("metadata.name must be no more than 63 characters")
    }));
    Ok(())
}

async fn every_optional_field_may_be_null(testbed: &Testbed) -> anyhow::Result<()> {
    let optional = [
        "device",
        "applicationType",
        "hostEndpoint",
        "externalIP",
        "flashjobPodImage",
        "settings",
        "runID",
        "parallelism",
        "suspend",
        "backoffLimitPerDevice",
        "maxFailedDevices",
        "deviceTimeoutSeconds",
        "addressTimeoutSeconds",
        "activeDeadlineSeconds",
        "verify",
        "skipIfCurrent",
        "exposure",
        "ttlSecondsAfterFinished",
        "podOverrides",
    ];
    let mut spec = with(json!({"uuid": ["a", "b"]}));
    for field in optional {
        spec[field] = Value::Null;
    }
    create(testbed, &job("created-with-nulls", spec.clone())).await?;
    apply(testbed, &job("applied-with-nulls", spec)).await?;
    let minimal_spec = with(json!({"uuid": ["a", "b"]}));
    create(testbed, &job("without", minimal_spec)).await?;
    let run =
        |job: flashjob_api::FlashJob| job.spec.effective().map_err(|error| anyhow::anyhow!(error));
    let jobs = jobs(testbed);
    let expected = run(jobs.get("without").await?)?;
    assert_eq!(run(jobs.get("created-with-nulls").await?)?, expected);
    assert_eq!(run(jobs.get("applied-with-nulls").await?)?, expected);
    Ok(())
}

async fn the_largest_job_is_taken(testbed: &Testbed) -> anyhow::Result<()> {
    let most: Vec<String> =
        (0..4096).map(|index| format!("d95c7c2d-7dc5-427b-9bf7-51a5d299{index:04}")).collect();
    create(testbed, &job(&"n".repeat(63), with(json!({"uuid": most, "maxFailedDevices": "10%"}))))
        .await
}
