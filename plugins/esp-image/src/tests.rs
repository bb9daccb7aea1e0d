//! Tests with image headers as ESP-IDF writes them.

use super::*;

/// Returns an image with the field offsets of ESP-IDF's documentation.
fn image(chip: u16) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES + SEGMENT_HEADER_BYTES + DESCRIPTOR_BYTES];
    // Six segments, DIO, 4 MiB of flash memory at 80 MHz.
    bytes[..4].copy_from_slice(&[0xe9, 6, 2, 0x2f]);
    bytes[12..14].copy_from_slice(&chip.to_le_bytes());
    // Revisions 1.1 to 3.99.
    bytes[15..19].copy_from_slice(&[101, 0, 0x8f, 1]);
    // The first segment is 1024 bytes at 0x3f400020.
    bytes[24..32].copy_from_slice(&[0x20, 0, 0x40, 0x3f, 0, 4, 0, 0]);
    bytes[32..40].copy_from_slice(&[0x32, 0x54, 0xcd, 0xab, 7, 0, 0, 0]);
    bytes[48..53].copy_from_slice(b"0.2.0");
    bytes[80..86].copy_from_slice(b"thermo");
    bytes
}

fn file(device_type: &str, size: u64) -> FirmwareFile {
    FirmwareFile {
        device_type: device_type.into(),
        firmware: "registry.example/firmware:2".into(),
        version: "0.2.0".into(),
        settings: "{}".into(),
        name: "firmware/thermo.bin".into(),
        size,
        beginning: Vec::new(),
    }
}

#[test]
fn an_image_says_its_version_project_chip_and_revisions() {
    let read = Image::read(&image(9)).expect("an image");
    let expected = Inspection {
        version: Some("0.2.0".into()),
        project: Some("thermo".into()),
        chip: Some("ESP32-S3".into()),
        device_types: vec!["esp32s3*".into()],
        secure_version: Some(7),
        min_chip_revision: Some("1.1".into()),
        max_chip_revision: Some("3.99".into()),
        refusal: None,
    };
    assert_eq!(read.inspect(&file("esp32s3", 4096), "esp32s3", true), expected);
    let expected = Inspection { version: None, ..expected };
    assert_eq!(read.inspect(&file("esp32s3", 4096), "esp32s3", false), expected);
}

#[test]
fn an_image_is_refused_for_another_chip_in_words_that_name_both_and_the_device_type() {
    for (number, device, names) in [
        (9, "esp32", Some(["ESP32-S3", "ESP32"])),
        (0, "esp32s3", Some(["ESP32", "ESP32-S3"])),
        (0x77, "ESP32-C61", Some(["chip 0x0077", "ESP32-C61"])),
        (0, "esp32cam", None),
        (5, "esp32-c3-mini", None),
        (0x14, "esp32c61", None),
        (5, "espserial", None),
        (9, "esp32s31", Some(["ESP32-S3", "ESP32-S31"])),
        (0, "esp32c7", None),
        (5, "esp32c7", None),
        (0x14, "esp32-c6", Some(["ESP32-C61", "ESP32-C6"])),
        (5, "esp32c62", None),
        (ANY_CHIP, "esp32", None),
    ] {
        let read = Image::read(&image(number)).expect("an image");
        let refusal = read.inspect(&file(device, 4096), device, true).refusal;
        let expected = names.map(|[image_chip, device_chip]| {
            format!(
                "firmware/thermo.bin is an image for {image_chip}, and device type {device} is \
                 {device_chip};"
            )
        });
        assert_eq!(refusal.is_some(), expected.is_some(), "{device}: {refusal:?}");
        let begins = refusal.unwrap_or_default().starts_with(&expected.unwrap_or_default());
        assert!(begins, "{device}");
    }
}

#[test]
fn a_chip_that_came_later_is_no_other_one_and_a_board_is_its_chip() {
    let unknown = |name: &str| Some(Chip::Unknown(name.to_owned()));
    for (device, expected) in [
        ("esp32", Some(Chip::Known(0, "ESP32"))),
        ("ESP32-CAM", Some(Chip::Known(0, "ESP32"))),
        ("esp32_wroom32", Some(Chip::Known(0, "ESP32"))),
        ("esp32-4mb", Some(Chip::Known(0, "ESP32"))),
        ("ESP32-C3-Mini", Some(Chip::Known(5, "ESP32-C3"))),
        ("esp32c61", Some(Chip::Known(0x14, "ESP32-C61"))),
        ("esp32c7", unknown("ESP32-C7")),
        ("esp32-c62-mini", unknown("ESP32-C62")),
        ("esp32e22", unknown("ESP32-E22")),
        ("esp8266", None),
        ("esp3", None),
        ("", None),
    ] {
        assert_eq!(chip_of(device), expected, "{device}");
    }
}

#[test]
fn an_image_whose_size_contradicts_its_header_is_refused() {
    let read = Image::read(&image(0)).expect("an image");
    for (size, words) in [
        (1055, Some("at least 1056: it is truncated")),
        (1056, None),
        (4 << 20, None),
        ((4 << 20) + 1, Some("a flash memory of 4194304 bytes")),
    ] {
        let refusal = read.inspect(&file("esp32", size), "esp32", true).refusal;
        match words {
            Some(words) => assert!(refusal.is_some_and(|text| text.contains(words)), "{size}"),
            None => assert_eq!(refusal, None, "{size}"),
        }
    }
}

#[test]
fn what_is_no_image_is_not_read_and_one_without_a_descriptor_says_no_version() {
    let mut without = image(0);
    without[32] = 0x50;
    let inspected = Image::read(&without).expect("an image").inspect(&file("x", 4096), "x", true);
    assert_eq!((inspected.version, inspected.secure_version), (None, None));
    for length in [24, 31, 40] {
        let short = Image::read(&image(0)[..length]).expect("an image");
        assert_eq!(short.application, None, "{length}");
    }
    let mut many = image(0);
    many[1] = 17;
    for bytes in [&image(0)[..23], &image(0)[1..], &many, &[0xff; 64], b"\x7fELF", b""] {
        assert_eq!(Image::read(bytes), None);
    }
}
