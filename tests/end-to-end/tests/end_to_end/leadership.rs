//! Two operators: one leads, the other is on standby and takes over however the first one ends.
//! Every device is flashed exactly once.

use std::time::Duration;

use flashjob_api::Phase;
use flashjob_end_to_end::rollouts::behave;
use flashjob_end_to_end::{LIMIT, apply, ended, job, nothing_left, status_where, uids};
use flashjob_simulators::devices::Behaviour;
use flashjob_testbed::process::eventually;
use flashjob_testbed::{Options, Signal, Testbed};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Duration of the Lease where it must not end by itself before a standby takes over.
const LONG_LEASE: u64 = 60;
/// Shorter than the remaining time of such a Lease, which its holder renews every two seconds.
const AT_ONCE: Duration = Duration::from_secs(45);

/// Duration of the Lease where it is waited for.
const SHORT_LEASE: u64 = 10;

const DEVICES: usize = 16;

async fn testbed_with(operators: usize, lease_seconds: u64) -> anyhow::Result<Testbed> {
    let devices = vec![format!("esp32:thermo:0.1.0={DEVICES}")];
    let options = Options { devices, addresses: 4, lease_seconds, ..Options::default() };
    let mut testbed = Testbed::start(&options).await?;
    behave(&testbed, &Behaviour { transfer_ms: 1000, ..Behaviour::default() }).await?;
    for index in 0..operators {
        assert_eq!(testbed.start_operator().await?, index);
        takes_the_role(&testbed, index, if index == 0 { "leader" } else { "standby" }, LIMIT)
            .await?;
    }
    Ok(testbed)
}

async fn takes_the_role(
    testbed: &Testbed,
    index: usize,
    role: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let what = format!("operator {index} is {role}");
    eventually(&what, limit, || async {
        Ok((testbed.role(index).await?.as_deref() == Some(role)).then_some(()))
    })
    .await
}

async fn flashed(testbed: &Testbed, count: usize) -> anyhow::Result<()> {
    eventually(&format!("{count} devices are flashed"), LIMIT, || async {
        let flashed =
            testbed.fleet.reports().await?.iter().filter(|report| report.flashed > 0).count();
        Ok((flashed >= count).then_some(()))
    })
    .await
}

async fn every_device_was_flashed_once(testbed: &Testbed, name: &str) -> anyhow::Result<()> {
    let status = ended(testbed, name).await?;
    assert_eq!(status.phase, Some(Phase::Completed), "{status:?}");
    for report in testbed.fleet.reports().await? {
        assert_eq!((report.updates, report.flashed, report.conflicts), (1, 1, 0), "{report:?}");
    }
    nothing_left(testbed).await
}

/// Returns the changes that this operator requested from the API server since this time, the Lease
/// excepted.
fn changes(testbed: &Testbed, operator: &str, since: Timestamp) -> anyhow::Result<Vec<Value>> {
    let log = std::fs::read_to_string(&testbed.control_plane.audit_log)?;
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_operator =
        entries.filter(|entry| text(&entry["userAgent"]).contains(&format!("({operator}_")));
    let changes = of_operator
        .filter(|entry| {
            matches!(
                text(&entry["verb"]).as_str(),
                "create" | "update" | "patch" | "delete" | "deletecollection"
            )
        })
        .filter(|entry| entry["objectRef"]["resource"] != "leases");
    Ok(changes
        .filter(|entry| {
            text(&entry["requestReceivedTimestamp"])
                .parse::<Timestamp>()
                .is_ok_and(|at| at >= since)
        })
        .collect())
}

#[tokio::test]
async fn a_terminated_leader_hands_over_at_once_and_a_killed_one_when_its_lease_is_over()
-> anyhow::Result<()> {
    let mut testbed = testbed_with(2, LONG_LEASE).await?;
    let all = uids(&testbed, "esp32", DEVICES).await?;
    apply(&testbed, &job("handed-over", &all, json!({}))).await?;
    flashed(&testbed, 2).await?;
    assert_eq!(
        changes(&testbed, "operator-1", Timestamp::MIN)?,
        Vec::<Value>::new(),
        "the standby changes nothing"
    );

    testbed.signal_operator(0, Signal::TERM)?;
    takes_the_role(&testbed, 1, "leader", AT_ONCE).await?;
    let status = testbed.operator_ended(0, AT_ONCE).await?;
    assert!(status.success(), "{status}");

    assert_eq!(testbed.start_operator().await?, 0);
    takes_the_role(&testbed, 0, "standby", LIMIT).await?;
    flashed(&testbed, 8).await?;
    testbed.signal_operator(1, Signal::KILL)?;
    assert!(!testbed.operator_ended(1, AT_ONCE).await?.success());
    takes_the_role(&testbed, 0, "leader", LIMIT).await?;
    every_device_was_flashed_once(&testbed, "handed-over").await?;

    let all_changes = [
        changes(&testbed, "operator-0", Timestamp::MIN)?,
        changes(&testbed, "operator-1", Timestamp::MIN)?,
    ]
    .concat();
    assert!(all_changes.len() > 4 * DEVICES);
    for change in all_changes {
        assert!(
            change["requestURI"].as_str().is_some_and(|uri| uri.contains("timeout=5s")),
            "{change}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_leader_stopped_past_its_lease_changes_nothing_when_it_goes_on() -> anyhow::Result<()> {
    let mut testbed = testbed_with(2, SHORT_LEASE).await?;
    let all = uids(&testbed, "esp32", DEVICES).await?;
    apply(&testbed, &job("stopped", &all, json!({}))).await?;
    flashed(&testbed, 2).await?;
    testbed.signal_operator(0, Signal::STOP)?;
    takes_the_role(&testbed, 1, "leader", LIMIT).await?;
    let so_far = testbed.fleet.reports().await?.iter().filter(|report| report.flashed > 0).count();
    flashed(&testbed, so_far + 1).await?;
    // Some work is left for the new leader until the old one has ended.
    behave(&testbed, &Behaviour::holding()).await?;

    let goes_on = Timestamp::now();
    testbed.signal_operator(0, Signal::CONT)?;
    // It finds that another operator leads, and exits; after its restart it is a standby.
    assert_eq!(testbed.operator_ended(0, LIMIT).await?.code(), Some(1));
    assert_eq!(testbed.start_operator().await?, 0);
    takes_the_role(&testbed, 0, "standby", LIMIT).await?;
    behave(&testbed, &Behaviour::default()).await?;
    every_device_was_flashed_once(&testbed, "stopped").await?;
    // The signal may have stopped it between the fence and the socket. Such a request is still
    // sent, and the API server rejects it, because the new leader has made the same change
    // meanwhile.
    let mut by_old = changes(&testbed, "operator-0", goes_on)?;
    by_old.retain(|entry| entry["responseStatus"]["code"] != 409);
    assert_eq!(by_old, Vec::<Value>::new());
    assert!(
        !changes(&testbed, "operator-1", goes_on)?.is_empty(),
        "the new leader worked meanwhile"
    );
    Ok(())
}

#[tokio::test]
async fn a_leader_that_nobody_replaced_goes_on_after_an_api_server_is_back() -> anyhow::Result<()>
{
    let mut testbed = testbed_with(1, SHORT_LEASE).await?;
    testbed.control_plane.stop_api_server().await?;
    takes_the_role(&testbed, 0, "leader, held back until its Lease is renewed", LIMIT).await?;
    testbed.control_plane.start_api_server().await?;
    takes_the_role(&testbed, 0, "leader", LIMIT).await?;
    let all = uids(&testbed, "esp32", 1).await?;
    apply(&testbed, &job("suspended", &all, json!({"suspend": true}))).await?;
    status_where(&testbed, "suspended", "it is looked after", |status| {
        status.observed_generation.is_some()
    })
    .await?;
    Ok(())
}
