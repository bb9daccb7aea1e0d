//! Tests flashing over a serial port, with the options that the plugin esp-serial generates,
//! against a chip on a pseudo-terminal that answers as a ROM loader and its stub do.

use std::time::{Duration, Instant};

use crate::world::plugin::{DeviceRequest, noise};
use flashjob_flasher::Stage;
use flashjob_flasher::arguments::{After, Command, Serial};
use flashjob_flasher::outcome::{AttemptFailure, Code, Sent};
use flashjob_flasher::serial::flash;
use flashjob_plugin_esp_serial::EspSerial;
use flashjob_simulators::serial::loader::{Settings, model};
use flashjob_simulators::serial::{Chip, Trouble, TroubleKind};
use serde_json::json;
use tokio::sync::watch;

/// Timeout of a step in tests that wait for it.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest duration of an attempt that ends by such a timeout.
const AT_MOST: Duration = Duration::from_secs(6);

/// A chip, and the options of the plugin for it.
struct Place {
    chip: Chip,
    options: Serial,
    _device_request: DeviceRequest,
}

impl Place {
    async fn new(settings: Settings, device: &str, firmware: &[u8]) -> Self {
        Self::with(settings, None, device, firmware).await
    }

    async fn in_trouble(kind: TroubleKind, after_blocks: u32) -> Self {
        let trouble = Trouble { kind, after_blocks };
        // The ESP32-C3 has answers of every length.
        let c3 = Settings { model: model::ESP32C3, ..Settings::default() };
        let mut place = Self::with(c3, Some(trouble), "esp32c3", &noise(200_000)).await;
        place.options.connect_timeout = LIMIT;
        place.options.stall_timeout = LIMIT;
        place
    }

    async fn with(
        settings: Settings,
        trouble: Option<Trouble>,
        device: &str,
        firmware: &[u8],
    ) -> Self {
        let chip = Chip::with(settings, trouble).expect("a terminal");
        let words = json!({"args": ["--before=no-reset", "--after=no-reset"]});
        let mut device_request = DeviceRequest::new(device, String::new(), &words, firmware).await;
        device_request.request.device.properties =
            vec![("UDEV_DEVNODE".to_owned(), chip.port.clone())];
        let Command::Serial(options) = device_request.command::<EspSerial>("", &[]) else {
            panic!("serial")
        };
        Self { chip, options: *options, _device_request: device_request }
    }

    async fn flash(&self) -> Result<Sent, AttemptFailure> {
        flash(&self.options, &watch::channel(Stage::Preparing).0).await
    }

    /// Checks that an attempt fails before it has changed the chip.
    async fn fails(&self, code: Code) -> String {
        let failure = self.flash().await.expect_err("not flashed");
        assert_eq!((failure.code, failure.bytes), (code, None), "{failure}");
        assert_eq!(self.chip.report().begun, 0, "{failure}");
        failure.to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flash_holds_the_firmware_and_nothing_else_with_a_stub_and_without() {
    let c3 = Settings { model: model::ESP32C3, ..Settings::default() };
    // Not a multiple of four, and more than one segment.
    let (hard, easy) = (noise((1 << 20) + 50_001), vec![7; 70_002]);
    for (settings, device, firmware, no_stub, offset) in [
        (Settings::default(), "esp32", &hard, false, 0_u32),
        (Settings::default(), "esp32", &easy, true, 0x10000),
        (c3, "ESP32-C3", &easy, false, 0x1000),
        (c3, "esp32c3-mini", &easy, true, 0),
    ] {
        let mut place = Place::new(settings, device, firmware).await;
        place.options.no_stub = no_stub;
        place.options.offset = offset;
        let sent = place.flash().await.unwrap_or_else(|failure| panic!("{device}: {failure}"));
        assert!(sent.proven && sent.bytes == firmware.len() as u64, "{sent:?}");
        let at = offset as usize;
        assert!(place.chip.content(at, firmware.len()) == *firmware, "{device}");
        let behind = place.chip.content(at + firmware.len(), 4096);
        assert!(behind.iter().all(|byte| *byte == 0xff), "{device}");
        let before = place.chip.content(0, at);
        assert!(before.iter().all(|byte| *byte == 0xff), "{device}");
        let report = place.chip.report();
        assert_eq!((report.stubs, report.reboots), (u32::from(!no_stub), u32::from(no_stub)));
        assert_eq!((report.conflicts, report.refused), (0, 0), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_attempt_writes_only_what_is_not_there() {
    let firmware = noise((2 << 20) + 5000);
    let place = Place::new(Settings::default(), "esp32", &firmware).await;
    let sent = place.flash().await.expect("flashed");
    assert!(sent.message.contains("its MD5 matches"), "{sent:?}");
    let first = place.chip.report();
    assert_eq!(first.begun, 3);
    let again = place.flash().await.expect("it is there");
    assert!(again.proven && again.message.contains("already"), "{again:?}");
    assert_eq!(place.chip.report().begun, first.begun);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_checks_all_and_writes_nothing() {
    let mut place = Place::new(Settings::default(), "esp32", &noise(100_000)).await;
    place.options.dry_run = true;
    let sent = place.flash().await.expect("a dry run");
    assert!(sent.message.contains("to esp32 on") && !sent.proven, "{sent:?}");
    assert_eq!(sent.bytes, 0);
    assert_eq!(place.chip.report().begun, 0);
    place.options.offset = 4 << 20;
    place.fails(Code::BadConfiguration).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chip_than_the_device_type_or_the_image_says_is_not_changed() {
    let place = Place::new(Settings::default(), "esp32c3", &noise(1000)).await;
    let message = place.fails(Code::WrongChip).await;
    assert!(message.contains("is esp32, but the device type esp32c3"), "{message}");
    // Header of an image for the ESP32-C3, whose number is 5.
    let mut image = noise(1000);
    image[..24].fill(0);
    (image[0], image[1], image[12]) = (0xe9, 3, 5);
    let place = Place::new(Settings::default(), "espserial", &image).await;
    let message = place.fails(Code::WrongChip).await;
    assert!(message.contains("is for esp32c3, but the chip is esp32;"), "{message}");
    let c3 = Settings { model: model::ESP32C3, ..Settings::default() };
    let place = Place::new(c3, "espserial", &image).await;
    place.flash().await.expect("it is for this chip");
    // An image for a later revision, 3.1.
    image[15..17].copy_from_slice(&301_u16.to_le_bytes());
    let place = Place::new(c3, "espserial", &image).await;
    let message = place.fails(Code::WrongChip).await;
    assert!(message.contains("requires chip revision 3.1"), "{message}");
    let unknown = model::Model { magic: (0x4000_1000, 7), ..model::ESP32 };
    let unknown = Settings { model: unknown, ..Settings::default() };
    Place::new(unknown, "espserial", &noise(1000)).await.fails(Code::WrongChip).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_without_room_without_bytes_or_as_elf_is_not_written() {
    let small = Settings { flash_bytes: 1 << 20, ..Settings::default() };
    let place = Place::new(small, "esp32", &noise((1 << 20) + 1)).await;
    let message = place.fails(Code::BadConfiguration).await;
    assert!(message.contains("1048577 bytes") && message.contains("1MB"), "{message}");
    let place = Place::new(Settings::default(), "esp32", &[]).await;
    let message = place.fails(Code::FirmwareUnavailable).await;
    assert!(message.contains("is empty"), "{message}");
    let place = Place::new(Settings::default(), "esp32", b"\x7fELF\x01\x01\x01").await;
    let message = place.fails(Code::FirmwareUnavailable).await;
    assert!(message.contains("save-image --merge"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_on_which_no_chip_answers_is_left_within_the_limit() {
    for kind in [
        TroubleKind::Silence,
        TroubleKind::Noise,
        TroubleKind::StuckLine,
        TroubleKind::WrongLength,
    ] {
        let place = Place::in_trouble(kind, 0).await;
        let started_at = Instant::now();
        let message = place.fails(Code::DeviceUnreachable).await;
        assert!(started_at.elapsed() < AT_MOST, "{kind:?}: {:?}", started_at.elapsed());
        assert!(message.contains(&place.chip.port), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chip_that_stops_in_the_middle_ends_the_attempt_within_the_limit() {
    for kind in
        [TroubleKind::Silence, TroubleKind::Noise, TroubleKind::StuckLine, TroubleKind::Unplugged]
    {
        let place = Place::in_trouble(kind, 3).await;
        let started_at = Instant::now();
        let failure = place.flash().await.expect_err("not flashed");
        assert_eq!(failure.code, Code::TransferBroken, "{kind:?}: {failure}");
        assert!(failure.bytes.is_some_and(|bytes| bytes > 0 && bytes < 200_000), "{failure:?}");
        assert!(started_at.elapsed() < AT_MOST, "{kind:?}: {:?}", started_at.elapsed());
        assert_eq!(place.chip.report().flashed, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flash_memory_that_does_not_hold_what_was_written_is_said() {
    for no_stub in [false, true] {
        let worn = Settings { is_worn: true, ..Settings::default() };
        let mut place = Place::new(worn, "esp32", &noise(50_000)).await;
        place.options.no_stub = no_stub;
        let failure = place.flash().await.expect_err("not verified");
        assert_eq!(failure.code, Code::VerifyFailed, "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_chip_gets_the_application_alone_and_is_not_called_proven() {
    let locked = Settings { model: model::ESP32C3, is_locked: true, ..Settings::default() };
    let application = noise(50_000);
    let mut place = Place::new(locked, "esp32c3", &application).await;
    let message = place.fails(Code::DeviceRefused).await;
    assert!(message.contains("Secure Download Mode"), "{message}");
    place.options.offset = 0x10000;
    let sent = place.flash().await.expect("flashed");
    assert!(!sent.proven, "{sent:?}");
    assert!(place.chip.content(0x10000, application.len()) == application);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chip_that_encrypts_its_flash_takes_only_what_is_said_to_be_encrypted() {
    for (model, device) in [(model::ESP32, "esp32"), (model::ESP32C3, "esp32c3")] {
        let encrypts = Settings { model, is_encrypted: true, ..Settings::default() };
        let mut place = Place::new(encrypts, device, &noise(10_000)).await;
        let message = place.fails(Code::DeviceRefused).await;
        assert!(message.contains("--encrypted"), "{message}");
        place.options.encrypted = true;
        assert!(place.flash().await.is_ok_and(|sent| sent.proven), "{device}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_cannot_be_used_is_named_with_the_cause() {
    let mut place = Place::new(Settings::default(), "esp32", &noise(1000)).await;
    place.options.after = After::HardReset;
    let message = place.fails(Code::BadConfiguration).await;
    assert!(message.contains("no control lines"), "{message}");
    place.options.after = After::NoReset;
    let other = serialport::new(&place.chip.port, 115_200).open_native().expect("opened");
    let message = place.fails(Code::DeviceBusy).await;
    assert!(message.contains("another process"), "{message}");
    drop(other);
    for (port, words) in [("/dev/ttyUSB99", "does not exist"), ("/dev/null", "as a serial port")] {
        place.options.port = port.into();
        let message = place.fails(Code::DeviceUnreachable).await;
        assert!(message.contains(port) && message.contains(words), "{message}");
    }
}
