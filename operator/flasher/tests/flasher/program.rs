//! Tests the program as a container runs it: exit status, termination message, signals, memory.

use std::process::Command;

use crate::world::{World, firmware, image, index};
use flashjob_simulators::devices::Behaviour;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Maximum resident memory of the process, in KiB, for firmware of 16 MiB. Pages of the program's
/// file do not count: a debug build has many.
const RESIDENT_KIB: u64 = 32 << 10;

/// Returns the termination message.
fn termination_message(world: &World) -> Value {
    let text = std::fs::read(world.folder.path().join("termination-log")).expect("a message");
    serde_json::from_slice(&text).expect("JSON")
}

/// Runs a program to its end on another thread, so that the simulated world can proceed.
async fn run(mut command: Command) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("joined").expect("started");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_end_is_told_by_status_message_and_output() {
    let world = World::new("127.79.1.1", None, Behaviour::default()).await;
    let mut json = world.program();
    json.env("FLASHER_PROGRESS", "json").env("FLASHER_ASK_AGAIN", "");
    let (code, output) = run(json).await;
    assert_eq!(
        (code, termination_message(&world)["code"].as_str()),
        (Some(0), Some("Sent")),
        "{output}"
    );
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.iter().any(|line| line["percent"] == 100), "{output}");
    for (name, value, expected, word) in [
        ("HOST_ENDPOINT", "", "BadConfiguration", "--host-endpoint"),
        ("EXTERNAL_IP", "thermo.example", "BadConfiguration", "--external-ip"),
        ("DEVICE", "esp32c3", "NoPlatform", "custom/esp32"),
    ] {
        let mut command = world.program();
        command.env(name, value);
        let (code, output) = run(command).await;
        let message = termination_message(&world);
        assert_eq!(message["code"], expected, "{message} {output}");
        let words = message["message"].as_str().expect("words");
        assert!(words.contains(word), "{message}");
        assert!(expected != "BadConfiguration" || words.contains(name), "{message}");
        assert!(code.is_some_and(|code| code > 1), "{code:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_that_cannot_be_read_is_told_where_it_says_itself() {
    let world = World::new("127.79.1.5", None, Behaviour::default()).await;
    let mut command = world.program();
    let other = world.folder.path().join("other");
    command.arg("--bogus").arg("--termination-log").arg(&other);
    let (code, output) = run(command).await;
    assert_eq!(code, Some(2), "{output}");
    let message: Value =
        serde_json::from_slice(&std::fs::read(other).expect("a message")).expect("JSON");
    assert_eq!(message["code"], "BadConfiguration");
    assert!(!world.folder.path().join("termination-log").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_it_ends_at_once_before_the_transfer_and_after_it_once_it_began() {
    let silent = Behaviour { no_callback: true, ..Behaviour::default() };
    let slow = Behaviour { transfer_ms: 700, ..Behaviour::default() };
    for (host, behaviour, expected, flashed) in
        [("127.79.1.2", silent, "Interrupted", 0), ("127.79.1.3", slow, "Sent", 1)]
    {
        // Larger than the buffers of a connection, so that the device limits the speed of the
        // transfer.
        let thermo = image("esp32", "firmware/thermo.bin", &firmware("2", 16 << 20));
        let called = behaviour.no_callback;
        let world = World::with(host, None, behaviour, index(vec![thermo])).await;
        let child = world.program().spawn().expect("started");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
        world
            .becomes("far enough", |report| match called {
                true => report.updates > 0,
                false => report.callbacks > 0,
            })
            .await;
        if !called {
            // The device has called; the handshake and its certificate follow shortly.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        kill_process(pid, Signal::TERM).expect("told");
        let output = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = output.await.expect("joined").expect("ended");
        let log = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(termination_message(&world)["code"], expected, "{log}");
        if flashed > 0 {
            world.becomes("flashed", |report| report.flashed == flashed).await;
        }
        assert_eq!(world.report().flashed, flashed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_of_16_mib_needs_no_more_than_32_mib() {
    let slow = Behaviour { transfer_ms: 2000, ..Behaviour::default() };
    let thermo = image("esp32", "firmware/thermo.bin", &firmware("2", 16 << 20));
    let world = World::with("127.79.1.4", None, slow, index(vec![thermo])).await;
    let mut child = world.program().spawn().expect("started");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().expect("waited").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(kib.unwrap_or(0_u64));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(termination_message(&world)["code"], "Sent");
    assert!(most > 16 << 10 && most <= RESIDENT_KIB, "{most} KiB were resident");
}
