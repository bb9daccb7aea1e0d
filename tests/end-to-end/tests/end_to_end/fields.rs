//! Every field of a FlashJob does what its row in the documentation says, on a real API server.

mod case;

use flashjob_api::condition::{STALLED, SUSPENDED};
use flashjob_api::{DeviceState, FlashJobStatus, Phase};
use flashjob_end_to_end::{
    LIMIT, apply, condition, create, ended, job, nothing_left, pod_where, reason_of, spec_seen,
    status_where, wait_until_gone,
};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Testbed};
use futures::future::{BoxFuture, FutureExt, try_join_all};
use kube::ResourceExt;
use serde_json::json;

use self::case::{Case, broken};

/// One control plane for all cases, with separate devices for each.
#[tokio::test]
async fn every_field_does_what_its_row_says() -> anyhow::Result<()> {
    let options = Options {
        devices: vec!["esp32:thermo:0.1.0=42".into()],
        addresses: 42,
        // An attempt that a deadline must end must not end by itself before.
        flasher_callback_timeout_ms: 600_000,
        ..Options::default()
    };
    let mut testbed = Testbed::start(&options).await?;
    testbed.start_operator().await?;
    let mut rest = testbed.devices().await?;
    let mut case = |name: &'static str, count: usize| Case {
        testbed: &testbed,
        name,
        devices: rest.drain(..count).collect(),
    };
    let facts: Vec<BoxFuture<'_, anyhow::Result<()>>> = vec![
        device_guards_the_type(case("device", 1)).boxed(),
        application_type_guards_the_application(case("application", 1)).boxed(),
        a_uid_named_twice_starts_nothing_and_is_told_by_its_name(case("twice", 2)).boxed(),
        host_endpoint_overrides_where_the_device_is_reached(case("endpoint", 2)).boxed(),
        external_ip_makes_devices_take_turns(case("external-ip", 3)).boxed(),
        settings_are_judged_by_their_plugin(case("settings", 1)).boxed(),
        run_id_flashes_again(case("run-id", 1)).boxed(),
        parallelism_limits_the_devices_in_flight(case("parallelism", 4)).boxed(),
        suspend_starts_nothing_until_it_is_taken_back(case("suspend", 1)).boxed(),
        backoff_limit_counts_retries(case("backoff", 1)).boxed(),
        max_failed_devices_as_a_number_stops_the_job(case("budget", 3)).boxed(),
        max_failed_devices_in_percent_is_rounded_down(case("percent", 4)).boxed(),
        device_timeout_ends_an_attempt(case("device-time", 1)).boxed(),
        active_deadline_ends_the_job(case("deadline", 2)).boxed(),
        verify_required_fails_a_device_that_keeps_its_version(case("required", 1)).boxed(),
        verify_best_effort_completes_it_unverified(case("best-effort", 1)).boxed(),
        verify_none_takes_the_verdict(case("none", 1)).boxed(),
        skip_if_current_leaves_the_device_alone(case("current", 1)).boxed(),
        a_pool_keeps_its_services(case("pooled", 3)).boxed(),
        ttl_deletes_the_finished_job(case("ttl", 1)).boxed(),
        pod_overrides_reach_the_pod_and_no_further_than_allowed(case("overrides", 2)).boxed(),
        a_changed_list_adds_and_drops_devices(case("list", 3)).boxed(),
        hostile_strings_harm_nobody(case("hostile", 1)).boxed(),
        the_longest_name_and_the_largest_list_are_worked_off(case("largest", 1)).boxed(),
    ];
    try_join_all(facts).await?;
    nothing_left(&testbed).await?;
    assert!(testbed.fleet.reports().await?.iter().all(|report| report.conflicts == 0));
    Ok(())
}

async fn device_guards_the_type(case: Case<'_>) -> anyhow::Result<()> {
    let status = case.run(json!({"device": "esp32s2"})).await?;
    case.expect(&status, "DeviceTypeMismatch", &[0]).await?;
    case.change(json!({"device": "ESP-32"})).await?;
    status_where(case.testbed, case.name, "case and dashes do not matter", |status| {
        status.phase == Some(Phase::Completed)
    })
    .await?;
    Ok(())
}

async fn application_type_guards_the_application(case: Case<'_>) -> anyhow::Result<()> {
    let status = case.run(json!({"applicationType": "camera"})).await?;
    case.expect(&status, "DeviceTypeMismatch", &[0]).await?;
    case.change(json!({"applicationType": "Thermo"})).await?;
    status_where(case.testbed, case.name, "case does not matter", |status| {
        status.phase == Some(Phase::Completed)
    })
    .await?;
    Ok(())
}

async fn host_endpoint_overrides_where_the_device_is_reached(
    case: Case<'_>,
) -> anyhow::Result<()> {
    let spec = json!({"hostEndpoint": case.devices[1].1.endpoint, "verify": {"mode": "None"}});
    create(case.testbed, &job(case.name, &case.uids()[..1], spec)).await?;
    case.completed(&ended(case.testbed, case.name).await?);
    assert_eq!(case.updates().await?, [0, 1]);
    Ok(())
}

async fn external_ip_makes_devices_take_turns(case: Case<'_>) -> anyhow::Result<()> {
    // A first device is flashed to learn an address of the pool.
    case.testbed.fleet.behave(&case.devices[0].1.id, &Behaviour::holding()).await?;
    create(case.testbed, &job("external-ip-first", &case.uids()[..1], json!({}))).await?;
    let pod = serde_json::to_value(
        pod_where(case.testbed, "external-ip-first", "it is made", |_| true).await?,
    )?;
    let variables = pod["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let address = variables
        .into_iter()
        .find(|variable| variable["name"] == "EXTERNAL_IP")
        .map(|variable| variable["value"].clone());
    assert!(address.is_some(), "{pod}");
    case.testbed.fleet.behave(&case.devices[0].1.id, &Behaviour::default()).await?;
    ended(case.testbed, "external-ip-first").await?;
    create(case.testbed, &job(case.name, &case.uids()[1..], json!({"externalIP": address})))
        .await?;
    let (looks, status) = case
        .watch(|pods, _| pods.iter().filter(|pod| flashjob_end_to_end::runs(pod)).count())
        .await?;
    case.completed(&status);
    assert!(looks.into_iter().all(|running| running <= 1), "one address, one device at a time");
    Ok(())
}

async fn settings_are_judged_by_their_plugin(case: Case<'_>) -> anyhow::Result<()> {
    let status = case.run(json!({"settings": {"esp32": {"colour": "red"}}})).await?;
    case.expect(&status, "SettingsRejected", &[0]).await?;
    assert!(status.message.is_some_and(|message| message.contains("/colour")));
    Ok(())
}

async fn run_id_flashes_again(case: Case<'_>) -> anyhow::Result<()> {
    let first = case.run(json!({"runID": "one"})).await?;
    case.completed(&first);
    case.change(json!({"runID": "two"})).await?;
    let again = |status: &FlashJobStatus| {
        status.run != first.run && status.phase == Some(Phase::Completed)
    };
    status_where(case.testbed, case.name, "it ran again", again).await?;
    assert_eq!(case.updates().await?, [2]);
    Ok(())
}

async fn parallelism_limits_the_devices_in_flight(case: Case<'_>) -> anyhow::Result<()> {
    case.all_behave(Behaviour::holding()).await?;
    case.start(json!({"parallelism": 2})).await?;
    let two_at_work = |status: &FlashJobStatus| {
        let count = |state: DeviceState| {
            status.devices.iter().filter(|device| device.state == state).count()
        };
        (count(DeviceState::Flashing), count(DeviceState::Pending)) == (2, 2)
    };
    status_where(case.testbed, case.name, "two are flashed, two wait", two_at_work).await?;
    case.all_behave(Behaviour::default()).await?;
    let (looks, status) = case
        .watch(|pods, _| pods.iter().filter(|pod| flashjob_end_to_end::runs(pod)).count())
        .await?;
    case.completed(&status);
    assert!(looks.into_iter().all(|running| running <= 2));
    Ok(())
}

async fn a_uid_named_twice_starts_nothing_and_is_told_by_its_name(
    case: Case<'_>,
) -> anyhow::Result<()> {
    let once = case.uids();
    let first = &once[0];
    let twice = [&once[..], &once[..1]].concat();
    create(case.testbed, &job(case.name, &twice, json!({}))).await?;
    let names_uid = |status: &FlashJobStatus| {
        condition(status, STALLED) == Some(("True".into(), "InvalidSpec".into()))
            && status
                .message
                .as_deref()
                .is_some_and(|message| message.contains("spec.uuid") && message.contains(first))
    };
    status_where(case.testbed, case.name, "the uid that is named twice is told", names_uid)
        .await?;
    assert_eq!(case.updates().await?, [0, 0]);
    case.change(json!({})).await?;
    case.completed(&ended(case.testbed, case.name).await?);
    Ok(())
}

async fn suspend_starts_nothing_until_it_is_taken_back(case: Case<'_>) -> anyhow::Result<()> {
    case.start(json!({"suspend": true})).await?;
    let suspended = |status: &FlashJobStatus| {
        condition(status, SUSPENDED).is_some_and(|(status, _)| status == "True")
    };
    status_where(case.testbed, case.name, "it is suspended", suspended).await?;
    assert_eq!(case.updates().await?, [0]);
    case.change(json!({"suspend": false})).await?;
    case.completed(&ended(case.testbed, case.name).await?);
    Ok(())
}

async fn backoff_limit_counts_retries(case: Case<'_>) -> anyhow::Result<()> {
    case.all_behave(broken()).await?;
    let status = case.run(json!({"backoffLimitPerDevice": 2})).await?;
    case.expect(&status, "PodFailed", &[3]).await
}

async fn max_failed_devices_as_a_number_stops_the_job(case: Case<'_>) -> anyhow::Result<()> {
    case.is_stopped(json!({"maxFailedDevices": 0}), 1).await
}

async fn max_failed_devices_in_percent_is_rounded_down(case: Case<'_>) -> anyhow::Result<()> {
    // 49 % of four is one; the second failure stops the job.
    case.is_stopped(json!({"maxFailedDevices": "49%"}), 2).await
}

async fn device_timeout_ends_an_attempt(case: Case<'_>) -> anyhow::Result<()> {
    case.all_behave(Behaviour { no_callback: true, ..Behaviour::default() }).await?;
    case.start(json!({"deviceTimeoutSeconds": 10, "backoffLimitPerDevice": 0})).await?;
    let pod = pod_where(case.testbed, case.name, "it is made", |_| true).await?;
    assert_eq!(pod.spec.and_then(|spec| spec.active_deadline_seconds), Some(10));
    let status = ended(case.testbed, case.name).await?;
    assert_eq!(
        reason_of(&status, &case.devices[0].0).as_deref(),
        Some("FlashTimeout"),
        "{status:?}"
    );
    Ok(())
}

async fn active_deadline_ends_the_job(case: Case<'_>) -> anyhow::Result<()> {
    case.all_behave(Behaviour { no_callback: true, ..Behaviour::default() }).await?;
    case.start(json!({"parallelism": 1})).await?;
    pod_where(case.testbed, case.name, "it runs", flashjob_end_to_end::runs).await?;
    eventually("the first was asked", LIMIT, || async {
        Ok((case.updates().await?[0] > 0).then_some(()))
    })
    .await?;
    case.change(json!({"parallelism": 1, "activeDeadlineSeconds": 1})).await?;
    let status = ended(case.testbed, case.name).await?;
    for (uid, _) in &case.devices {
        assert_eq!(reason_of(&status, uid).as_deref(), Some("DeadlineExceeded"), "{status:?}");
    }
    // The flash program asks a device that does not call back again, so only the second is counted.
    assert_eq!(case.updates().await?[1], 0, "{status:?}");
    Ok(())
}

fn stale() -> Behaviour {
    Behaviour { stale_version: true, ..Behaviour::default() }
}

async fn verify_required_fails_a_device_that_keeps_its_version(
    case: Case<'_>,
) -> anyhow::Result<()> {
    case.all_behave(stale()).await?;
    let verify = json!({"mode": "Required", "timeoutSeconds": 2});
    let status = case.run(json!({"verify": verify, "backoffLimitPerDevice": 1})).await?;
    case.expect(&status, "VersionNotReported", &[2]).await
}

async fn verify_best_effort_completes_it_unverified(case: Case<'_>) -> anyhow::Result<()> {
    case.all_behave(stale()).await?;
    let status = case.run(json!({"verify": {"mode": "BestEffort", "timeoutSeconds": 2}})).await?;
    case.completed(&status);
    assert_eq!(status.counts.unwrap_or_default().unverified, 1, "{status:?}");
    Ok(())
}

async fn verify_none_takes_the_verdict(case: Case<'_>) -> anyhow::Result<()> {
    case.all_behave(stale()).await?;
    let status = case.run(json!({"verify": {"mode": "None"}})).await?;
    case.completed(&status);
    assert_eq!(status.counts.unwrap_or_default().unverified, 0, "{status:?}");
    Ok(())
}

async fn skip_if_current_leaves_the_device_alone(case: Case<'_>) -> anyhow::Result<()> {
    let status = case.run(json!({"skipIfCurrent": true, "version": "0.1.0"})).await?;
    case.completed(&status);
    case.expect(&status, "AlreadyCurrent", &[0]).await
}

async fn a_pool_keeps_its_services(case: Case<'_>) -> anyhow::Result<()> {
    case.start(json!({"exposure": "Pooled", "parallelism": 1})).await?;
    let (looks, status) = case
        .watch(|_, services| services.iter().filter_map(ResourceExt::uid).collect::<Vec<_>>())
        .await?;
    case.completed(&status);
    let mut uids: Vec<String> = looks.into_iter().flatten().collect();
    uids.sort();
    uids.dedup();
    assert_eq!(uids.len(), 1, "three devices take turns at one Service");
    Ok(())
}

async fn ttl_deletes_the_finished_job(case: Case<'_>) -> anyhow::Result<()> {
    case.start(json!({"ttlSecondsAfterFinished": 0})).await?;
    wait_until_gone(case.testbed, case.name).await?;
    assert_eq!(case.updates().await?, [1]);
    Ok(())
}

async fn pod_overrides_reach_the_pod_and_no_further_than_allowed(
    case: Case<'_>,
) -> anyhow::Result<()> {
    let overrides = json!({
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "flash", "operator": "Exists"}],
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}},
        "imagePullSecrets": [{"name": "registry-robot"}],
    });
    case.all_behave(Behaviour::holding()).await?;
    create(case.testbed, &job(case.name, &case.uids()[..1], json!({"podOverrides": overrides})))
        .await?;
    let pod = pod_where(case.testbed, case.name, "it is made", |_| true).await?;
    case.all_behave(Behaviour::default()).await?;
    let spec = serde_json::to_value(pod.spec)?;
    assert_eq!(spec["nodeSelector"], overrides["nodeSelector"]);
    assert!(
        spec["tolerations"]
            .as_array()
            .is_some_and(|all| all.contains(&overrides["tolerations"][0])),
        "{spec}"
    );
    assert_eq!(
        (
            &spec["containers"][0]["resources"]["limits"]["memory"],
            &spec["imagePullSecrets"][0]["name"]
        ),
        (&json!("64Mi"), &json!("registry-robot"))
    );
    assert_eq!(spec["automountServiceAccountToken"], false);
    create(
        case.testbed,
        &job(
            "overrides-denied",
            &case.uids()[1..],
            json!({"podOverrides": {"serviceAccountName": "admin"}}),
        ),
    )
    .await?;
    let status = ended(case.testbed, "overrides-denied").await?;
    assert_eq!(
        reason_of(&status, &case.devices[1].0).as_deref(),
        Some("GrantDenied"),
        "{status:?}"
    );
    case.completed(&ended(case.testbed, case.name).await?);
    Ok(())
}

async fn a_changed_list_adds_and_drops_devices(case: Case<'_>) -> anyhow::Result<()> {
    // The list must change while the first is in flight.
    case.all_behave(Behaviour::holding()).await?;
    let uids = case.uids();
    // Server-side apply from the first write on: an item that another field manager added to a set
    // would stay in it.
    apply(case.testbed, &job(case.name, &uids[..2], json!({"parallelism": 1}))).await?;
    let flashing = |status: &FlashJobStatus| {
        status.devices.iter().any(|device| device.state == DeviceState::Flashing)
    };
    status_where(case.testbed, case.name, "the first is flashed", flashing).await?;
    // The first device, in flight, finishes though it is removed from the list; the second is
    // removed before its turn; the third is added.
    apply(case.testbed, &job(case.name, &uids[2..], json!({"parallelism": 1}))).await?;
    spec_seen(case.testbed, case.name).await?;
    case.all_behave(Behaviour::default()).await?;
    let done =
        |status: &FlashJobStatus| status.completed_uuids == uids[2..] && status.devices.is_empty();
    status_where(case.testbed, case.name, "it is over", done).await?;
    assert_eq!(case.updates().await?, [1, 0, 1]);
    Ok(())
}

async fn hostile_strings_harm_nobody(case: Case<'_>) -> anyhow::Result<()> {
    let text = "$(UUID) `id` \"'\\ <script>\u{301}{{.}} %s 🔥";
    let status = case.run(json!({"runID": text, "settings": {"esp32": {text: text}}})).await?;
    case.expect(&status, "SettingsRejected", &[0]).await?;
    // The firmware's name reaches the container unchanged. Only there it fails, and permanently,
    // because it is not a valid reference.
    create(
        case.testbed,
        &job(
            "hostile-firmware",
            &case.uids(),
            json!({"firmware": text.replace(' ', "_"), "backoffLimitPerDevice": 0}),
        ),
    )
    .await?;
    let status = ended(case.testbed, "hostile-firmware").await?;
    case.expect(&status, "GaveUp", &[0]).await?;
    assert!(
        status.devices[0].message.as_ref().is_some_and(|message| message.contains("$(UUID)")),
        "{status:?}"
    );
    for (field, value) in [("firmware", "a\nb"), ("firmware", "a\u{1}"), ("version", "\r\n")] {
        let object = job("hostile-lines", &case.uids(), json!({field: value}));
        let refused = create(case.testbed, &object).await.err().map(|error| error.to_string());
        assert!(refused.as_ref().is_some_and(|error| error.contains(field)), "{refused:?}");
    }
    for (name, spec) in [
        ("hostile-image", json!({"flashjobPodImage": text})),
        ("hostile-setting", json!({"settings": {"esp32": {"\u{1}": 1}}})),
        ("hostile-guard", json!({"device": text})),
        ("hostile-selector", json!({"podOverrides": {"nodeSelector": {text: text}}})),
    ] {
        let mut object = job(name, &case.uids(), spec);
        object["spec"]["backoffLimitPerDevice"] = json!(0);
        create(case.testbed, &object).await?;
        let status = ended(case.testbed, name).await?;
        assert_eq!(
            (status.phase, status.failed_uuids.len()),
            (Some(Phase::Failed), 1),
            "{name}: {status:?}"
        );
        let rejected =
            reason_of(&status, &case.devices[0].0).as_deref() == Some("SettingsRejected");
        assert_eq!(rejected, name == "hostile-setting", "{name}: {status:?}");
    }
    assert_eq!(case.updates().await?, [0]);
    Ok(())
}

async fn the_longest_name_and_the_largest_list_are_worked_off(
    case: Case<'_>,
) -> anyhow::Result<()> {
    let unknown = (1..4096).map(|index| format!("d95c7c2d-7dc5-427b-9bf7-51a5d299{index:04}"));
    let uids: Vec<String> = unknown.chain(case.uids()).collect();
    let name = format!("n{}", ".x".repeat(31));
    create(case.testbed, &job(&name, &uids, json!({}))).await?;
    let status = ended(case.testbed, &name).await?;
    assert_eq!(
        (status.completed_uuids, status.failed_uuids.len()),
        (case.uids(), 4095),
        "{:?}",
        status.message
    );
    assert_eq!(status.devices.len(), 100);
    Ok(())
}
