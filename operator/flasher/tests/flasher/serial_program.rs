//! Tests the program with the variables of the plugin esp-serial: exit status, messages, and
//! signals during a transfer.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::world::plugin::{DeviceRequest, noise};
use flashjob_plugin_esp_serial::EspSerial;
use flashjob_simulators::serial::loader::{Report, Settings};
use flashjob_simulators::serial::{Chip, Trouble, TroubleKind};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};

/// Longest time that a test waits for something.
const LIMIT: Duration = Duration::from_secs(30);
/// An unprivileged user, who has a group of the same number.
const NOBODY: u32 = 65532;

struct Place {
    chip: Chip,
    device_request: DeviceRequest,
    firmware: Vec<u8>,
}

impl Place {
    async fn new(trouble: Option<Trouble>) -> Self {
        let firmware = noise(200_000);
        let chip = Chip::with(Settings::default(), trouble).expect("a terminal");
        let mut device_request =
            DeviceRequest::new("esp32", String::new(), &json!({}), &firmware).await;
        device_request.request.device.properties =
            vec![("UDEV_DEVNODE".to_owned(), chip.port.clone())];
        Self { chip, device_request, firmware }
    }

    /// Returns the program as the container runs it, after these words.
    fn program(&self, before: &[&str]) -> Command {
        let mut command = self.device_request.program::<EspSerial>("", before);
        command.env("FLASHER_BEFORE", "no-reset").env("FLASHER_AFTER", "no-reset");
        command
    }

    /// Returns the program for that user, without capabilities; only if the test runs as root, who
    /// has every permission.
    fn program_of_nobody(&self) -> Command {
        let folder = self.device_request.folder.path();
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("set");
        let nobody = NOBODY.to_string();
        let words = ["setpriv", "--reuid", &nobody, "--regid", &nobody, "--clear-groups"];
        let bounds = ["--bounding-set", "-all", "--no-new-privs", "--"];
        let before = [words.as_slice(), &bounds].concat();
        let mut command = self.program(if geteuid().is_root() { &before } else { &[] });
        command.env("PATH", "/usr/bin:/bin");
        command
    }

    /// Returns the termination message.
    fn termination_message(&self) -> Value {
        let file = self.device_request.folder.path().join("termination-log");
        serde_json::from_slice(&std::fs::read(file).expect("a message")).expect("JSON")
    }

    /// Waits until a condition on the chip holds.
    async fn becomes(&self, what: &str, holds: impl Fn(&Report) -> bool) {
        let end = Instant::now() + LIMIT;
        while !holds(&self.chip.report()) {
            assert!(Instant::now() < end, "never: {what}: {:?}", self.chip.report());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits for the end of the process, while the registry keeps serving.
async fn end(mut child: Child) -> Option<i32> {
    let ended = tokio::task::spawn_blocking(move || child.wait());
    ended.await.expect("joined").expect("ended").code()
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::TERM).expect("told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_ports_group_alone_flashes_and_tells_so_in_json_and_by_status() {
    let place = Place::new(None).await;
    if geteuid().is_root() {
        chown(&place.chip.port, None, Some(NOBODY)).expect("given");
        let group = PermissionsExt::from_mode(0o060);
        std::fs::set_permissions(&place.chip.port, group).expect("set");
    }
    let mut command = place.program_of_nobody();
    command.env("FLASHER_PROGRESS", "json");
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("joined").expect("started");
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    let message = place.termination_message();
    assert_eq!((output.status.code(), &message["code"]), (Some(0), &json!("Sent")), "{log}");
    assert_eq!((&message["bytes"], &message["proven"]), (&json!(200_000), &json!(true)));
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.iter().any(|line| line["percent"] == 100), "{log}");
    assert!(place.chip.content(0, place.firmware.len()) == place.firmware);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_before_the_transfer_it_ends_at_once() {
    let trouble = Trouble { kind: TroubleKind::Silence, after_blocks: 0 };
    let place = Place::new(Some(trouble)).await;
    let child = place.program(&[]).spawn().expect("started");
    place.becomes("asked", |report| report.requests > 0).await;
    let started_at = Instant::now();
    terminate(&child);
    assert_eq!(end(child).await, Some(12));
    assert!(started_at.elapsed() < Duration::from_secs(2), "{:?}", started_at.elapsed());
    assert_eq!(place.termination_message()["code"], "Interrupted");
    assert_eq!(place.chip.report().begun, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_end_during_the_transfer_it_finishes_it() {
    let trouble = Trouble { kind: TroubleKind::Waits, after_blocks: 2 };
    let place = Place::new(Some(trouble)).await;
    let mut child = place.program(&[]).spawn().expect("started");
    place.becomes("half-way", |report| report.blocks == 2).await;
    terminate(&child);
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let noticed = tokio::task::spawn_blocking(move || {
        let mut lines = output.lines().map_while(Result::ok);
        let is_noticed = lines.any(|line| line.contains("finishing the transfer first"));
        // Dropping the reader would close the pipe and end the program.
        (is_noticed, lines)
    });
    let (is_noticed, lines) = noticed.await.expect("joined");
    assert!(is_noticed);
    place.chip.go_on();
    let rest = tokio::task::spawn_blocking(move || lines.count());
    assert_eq!(end(child).await, Some(0));
    assert!(rest.await.expect("joined") > 0);
    assert_eq!(
        (place.termination_message()["code"].as_str(), place.chip.report().flashed),
        (Some("Sent"), 1)
    );
    assert!(place.chip.content(0, place.firmware.len()) == place.firmware);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_for_others_is_named_with_its_group() {
    let place = Place::new(None).await;
    std::fs::set_permissions(&place.chip.port, PermissionsExt::from_mode(0o000)).expect("set");
    let mut command = place.program_of_nobody();
    assert_eq!(end(command.spawn().expect("started")).await, Some(2));
    let message = place.termination_message();
    assert_eq!(message["code"], "BadConfiguration", "{message}");
    let words = message["message"].as_str().expect("words");
    assert!(words.contains("add group") && words.contains(&place.chip.port), "{words}");
}
