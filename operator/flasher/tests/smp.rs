//! Update over SMP, with the options that the plugin mcumgr makes, against a device with two slots
//! that behaves as MCUboot does: it checks the image, swaps on a restart, and goes back to its old
//! image unless the new one is confirmed.
#![allow(clippy::expect_used)]
mod smp_device;
#[allow(dead_code, reason = "the device's part is for the other tests")]
mod world;

use std::time::Duration;

use flashjob_flasher::Stage;
use flashjob_flasher::arguments::{Command, Smp};
use flashjob_flasher::outcome::{Code, Failure, Sent};
use flashjob_flasher::smp::flash;
use flashjob_plugin_mcumgr::Mcumgr;
use serde_json::json;
use smp_device::{Behaviour, SmpDevice, mcuboot_image};
use tokio::sync::watch;
use world::plugin::Asked;

/// Size of the images, in bytes: several hundred requests.
const SIZE: usize = 100_000;

/// A device, and the options of the plugin for it.
struct Place {
    device: SmpDevice,
    options: Smp,
    _asked: Asked,
}

impl Place {
    async fn new(behaviour: Behaviour, firmware: &[u8]) -> Self {
        let device = SmpDevice::start(mcuboot_image([1, 0, 0], SIZE), behaviour);
        let endpoint = device.address.to_string();
        let asked = Asked::new("nrf52840", endpoint, &json!({}), firmware).await;
        let command = asked.command::<Mcumgr>("", &[]);
        let Command::Smp(mut options) = command else { panic!("smp") };
        options.answer_timeout = Duration::from_millis(300);
        options.restart_timeout = Duration::from_secs(3);
        Self { device, options: *options, _asked: asked }
    }

    async fn flash(&self) -> Result<Sent, Failure> {
        flash(&self.options, &watch::channel(Stage::Preparing).0).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_runs_the_new_image_and_keeps_it_and_a_second_attempt_changes_nothing() {
    for behaviour in [Behaviour::default(), Behaviour { lossy: true, ..Behaviour::default() }] {
        let place = Place::new(behaviour, &mcuboot_image([2, 0, 0], SIZE)).await;
        let sent = place.flash().await.expect("flashed");
        assert!(sent.proven && sent.message.contains("version 2.0.0, confirmed"), "{sent:?}");
        let resets = place.device.resets();
        assert_eq!((place.device.runs(), place.device.is_confirmed()), ("2.0.0".into(), true));
        // As after a flash program that was killed at its end.
        let again = place.flash().await.expect("it runs it already");
        assert!(again.proven, "{again:?}");
        assert_eq!(place.device.resets(), resets, "it is not restarted again");
        // What was confirmed stays over a power cut.
        place.device.reset();
        assert_eq!(place.device.runs(), "2.0.0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_new_image_does_not_start_goes_back_and_that_is_said() {
    let reverts = Behaviour { reverts: true, ..Behaviour::default() };
    let place = Place::new(reverts, &mcuboot_image([2, 0, 0], SIZE)).await;
    let failure = place.flash().await.expect_err("it went back");
    assert_eq!(failure.code, Code::Reverted, "{failure}");
    assert!(failure.to_string().contains("it runs 1.0.0 again"), "{failure}");
    assert_eq!((place.device.runs(), place.device.is_confirmed()), ("1.0.0".into(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_not_confirmed_before_the_device_is_back() {
    let gone = Behaviour { never_back: true, ..Behaviour::default() };
    let place = Place::new(gone, &mcuboot_image([2, 0, 0], SIZE)).await;
    let failure = place.flash().await.expect_err("it does not come back");
    assert_eq!(failure.code, Code::VerifyFailed, "{failure}");
    assert!(!place.device.is_confirmed());
    // Its watchdog restarts it: nothing was confirmed, so it runs what it ran before.
    place.device.reset();
    assert_eq!(place.device.runs(), "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_of_that_version_or_is_refused_changes_nothing() {
    let good = mcuboot_image([2, 0, 0], SIZE);
    let mut cut = good.clone();
    cut.truncate(SIZE / 2);
    let refuses = Behaviour { refuses: true, ..Behaviour::default() };
    for (behaviour, firmware, code) in [
        (Behaviour::default(), b"no image".to_vec(), Code::FirmwareUnavailable),
        (Behaviour::default(), cut, Code::FirmwareUnavailable),
        (Behaviour::default(), mcuboot_image([2, 0, 1], SIZE), Code::BadConfiguration),
        (refuses, good.clone(), Code::DeviceRefused),
    ] {
        let place = Place::new(behaviour, &firmware).await;
        let failure = place.flash().await.expect_err("not flashed");
        assert_eq!(failure.code, code, "{failure}");
        assert_eq!((place.device.runs(), place.device.resets()), ("1.0.0".into(), 0));
    }
    let mut place = Place::new(Behaviour::default(), &good).await;
    place.options.dry_run = true;
    let sent = place.flash().await.expect("a dry run");
    assert!(sent.message.contains("runs 1.0.0; nothing was sent"), "{sent:?}");
    place.options.host_endpoint = Some("127.0.0.1:9".to_owned());
    place.options.answer_timeout = Duration::from_millis(20);
    let failure = place.flash().await.expect_err("nobody answers");
    assert_eq!(failure.code, Code::DeviceUnreachable, "{failure}");
}
