//! Tests updates over SMP, with the options that the plugin mcumgr generates, against a device
//! with two slots that behaves as MCUboot does: it checks the image, swaps on a restart, and
//! reverts to its old image unless the new one is confirmed.

use std::time::Duration;

use crate::world::plugin::DeviceRequest;
use flashjob_flasher::Stage;
use flashjob_flasher::arguments::{Command, Smp};
use flashjob_flasher::outcome::{AttemptFailure, Code, Sent};
use flashjob_flasher::smp::flash;
use flashjob_plugin_mcumgr::Mcumgr;
use flashjob_plugin_sdk::Request;
use flashjob_simulators::smp::{Behaviour, SmpDevice, mcuboot_image};
use serde_json::json;
use tokio::sync::watch;

/// Size of the images, in bytes: several hundred requests.
const SIZE: u32 = 100_000;

/// A device, and the options of the plugin for it.
struct Place {
    device: SmpDevice,
    options: Smp,
    _device_request: DeviceRequest,
}

impl Place {
    async fn new(behaviour: Behaviour, firmware: &[u8]) -> Self {
        let device = SmpDevice::on_udp(mcuboot_image([1, 0, 0], SIZE), behaviour);
        Self::of(device.expect("a port"), firmware, |request, place| {
            request.device.endpoint = Some(place);
        })
        .await
    }

    async fn on_serial_port(behaviour: Behaviour, firmware: &[u8]) -> Self {
        let device = SmpDevice::on_serial_port(mcuboot_image([1, 0, 0], SIZE), behaviour);
        Self::of(device.expect("a terminal"), firmware, |request, place| {
            request.device.endpoint = None;
            request.device.properties = vec![("UDEV_DEVNODE".to_owned(), place)];
        })
        .await
    }

    /// Places the device where Akri's request announces it.
    async fn of(
        device: SmpDevice,
        firmware: &[u8],
        announce: impl FnOnce(&mut Request, String),
    ) -> Self {
        let mut device_request =
            DeviceRequest::new("nrf52840", String::new(), &json!({}), firmware).await;
        announce(&mut device_request.request, device.place.clone());
        let command = device_request.command::<Mcumgr>("", &[]);
        let Command::Smp(mut options) = command else { panic!("smp") };
        options.answer_timeout = Duration::from_millis(300);
        options.restart_timeout = Duration::from_secs(3);
        Self { device, options: *options, _device_request: device_request }
    }

    async fn flash(&self) -> Result<Sent, AttemptFailure> {
        flash(&self.options, &watch::channel(Stage::Preparing).0).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_runs_the_new_image_and_keeps_it_and_a_second_attempt_changes_nothing() {
    let (well, image) = (Behaviour::default(), mcuboot_image([2, 0, 0], SIZE));
    let mut places = vec![Place::on_serial_port(well, &image).await];
    for behaviour in [
        well,
        Behaviour { lossy: true, ..well },
        // A repeated request to restart would revert the new image.
        Behaviour { mute_reset: true, ..well },
    ] {
        places.push(Place::new(behaviour, &image).await);
    }
    for place in places {
        let sent = place.flash().await.expect("flashed");
        assert!(sent.proven && sent.message.contains("version 2.0.0, confirmed"), "{sent:?}");
        assert!(sent.message.contains(" of sha256:"), "{sent:?}");
        let resets = place.device.resets();
        assert_eq!((place.device.runs(), place.device.is_confirmed()), ("2.0.0".into(), true));
        // As after a flash program that was killed at its end.
        let again = place.flash().await.expect("it runs it already");
        assert!(again.proven, "{again:?}");
        assert_eq!(place.device.resets(), resets, "it is not restarted again");
        // A confirmed image survives a power cut.
        place.device.reset();
        assert_eq!(place.device.runs(), "2.0.0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_images_the_one_that_was_uploaded_is_confirmed() {
    let behaviour = Behaviour { has_application: true, ..Behaviour::default() };
    let mut place = Place::new(behaviour, &mcuboot_image([2, 0, 0], SIZE)).await;
    place.options.image_number = 1;
    let sent = place.flash().await.expect("flashed");
    assert!(sent.proven, "{sent:?}");
    assert_eq!((place.device.runs(), place.device.is_confirmed()), ("2.0.0".into(), true));
    place.device.reset();
    assert_eq!(place.device.runs(), "2.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_new_image_does_not_start_goes_back_and_that_is_said() {
    let reverts = Behaviour { reverts: true, ..Behaviour::default() };
    let image = mcuboot_image([2, 0, 0], SIZE);
    for place in [Place::new(reverts, &image).await, Place::on_serial_port(reverts, &image).await]
    {
        let failure = place.flash().await.expect_err("it went back");
        assert_eq!(failure.code, Code::Reverted, "{failure}");
        assert!(failure.to_string().contains("it runs 1.0.0 again"), "{failure}");
        assert_eq!((place.device.runs(), place.device.is_confirmed()), ("1.0.0".into(), true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_not_confirmed_before_the_device_is_back() {
    let behaviour = Behaviour { never_back: true, ..Behaviour::default() };
    let place = Place::new(behaviour, &mcuboot_image([2, 0, 0], SIZE)).await;
    let failure = place.flash().await.expect_err("it does not come back");
    assert_eq!(failure.code, Code::VerifyFailed, "{failure}");
    assert!(!place.device.is_confirmed());
    // The watchdog restarts the device: nothing was confirmed, so it runs the old image.
    place.device.reset();
    assert_eq!(place.device.runs(), "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_of_that_version_or_is_refused_changes_nothing() {
    let good = mcuboot_image([2, 0, 0], SIZE);
    let mut cut = good.clone();
    cut.truncate(cut.len() / 2);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_port_that_another_process_has_is_named_and_the_device_is_not_changed() {
    let good = mcuboot_image([2, 0, 0], SIZE);
    let place = Place::on_serial_port(Behaviour::default(), &good).await;
    let other = serialport::new(&place.device.place, 115_200).open_native().expect("opened");
    let failure = place.flash().await.expect_err("it is in use");
    assert_eq!(failure.code, Code::DeviceBusy, "{failure}");
    assert!(failure.to_string().contains(&place.device.place), "{failure}");
    assert_eq!((place.device.uploaded(), place.device.resets()), (0, 0));
    drop(other);
    place.flash().await.expect("it is free again");
}
