//! Tests of the plugin's functions.

use flashjob_plugin_sdk::Arg;

use super::*;

fn request(settings: &str) -> Request {
    let properties =
        [("UDEV_DEVNODE", "/dev/ttyUSB0"), ("UDEV_DEVPATH", "/devices/usb1/1-1/ttyUSB0")];
    Request {
        namespace: "fleet".into(),
        job: "job".into(),
        device: Device {
            uid: "uid".into(),
            name: "akri-serial-a1b2c3".into(),
            endpoint: None,
            device_type: DEVICE_TYPE.into(),
            application_type: None,
            reported_version: None,
            nodes: vec!["node".into()],
            properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        },
        firmware: "registry/firmware:2".into(),
        version: "2".into(),
        image: None,
        settings: settings.into(),
        attempt: 1,
    }
}

fn words(flash: &FlashPod) -> String {
    let words = flash.args.iter().map(|word| match word {
        Arg::Literal(text) => text.as_str(),
        Arg::ExternalAddress => panic!("there is no address"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_command_line_is_one_that_esptool_takes_and_the_device_is_attached_without_a_service() {
    let flash = EspSerial::build(request("{}")).expect("built");
    let expected = "--chip auto --port /dev/ttyUSB0 --baud 460800 --before default-reset --after \
        hard-reset write-flash --flash-mode keep --flash-size keep 0x0 /firmware/firmware.bin";
    assert_eq!(words(&flash), expected);
    assert!(
        flash.attach_device
            && flash.ports.is_empty()
            && flash.command.is_empty()
            && flash.env.is_empty()
    );
    assert_eq!((flash.groups, flash.user), (vec![20], User::Uid(65532)));
}

#[test]
fn the_image_is_the_jobs_else_the_settings_else_the_firmware_itself() {
    let image = |request| EspSerial::build(request).expect("built").image;
    let settings = r#"{"image":"registry/tool:1"}"#;
    assert_eq!(image(request("{}")), "registry/firmware:2");
    assert_eq!(image(request(settings)), "registry/tool:1");
    for settings in [r#"{"image":"registry/tool:1"}"#, r#"{"program":"esptool"}"#] {
        let request = Request { image: Some("registry/own:1".into()), ..request(settings) };
        assert_eq!(image(request), "registry/own:1");
    }
}

#[test]
fn an_image_that_the_job_names_runs_this_projects_program_unless_the_settings_say_esptool() {
    let build = |settings| {
        let request = Request { image: Some("registry/flasher:1".into()), ..request(settings) };
        EspSerial::build(request).expect("built")
    };
    let flash = build(r#"{"registryAccess":true,"group":18,"args":["--no-stub"]}"#);
    assert_eq!(flash.command, COMMAND.map(literal));
    assert_eq!(words(&flash), "--baud=460800 --offset=0x0 --no-stub");
    let variable = |flash: &FlashPod, name: &str| {
        flash.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let value = |text: &str| Some(EnvValue::Literal(text.to_owned()));
    assert_eq!(variable(&flash, "FIRMWARE"), value("registry/firmware:2"));
    assert_eq!(variable(&flash, "DEVICE"), value("espserial"));
    assert_eq!(variable(&flash, "UDEV_DEVNODE"), value("/dev/ttyUSB0"));
    assert!(flash.attach_device && flash.groups == [18] && flash.secrets.len() == 1);
    assert_eq!(variable(&build(r#"{"chip":"esp32c3"}"#), "DEVICE"), value("esp32c3"));
    let esptool = build(r#"{"program":"esptool"}"#);
    assert!(esptool.command.is_empty() && words(&esptool).starts_with("--chip auto"));
    let program_settings = r#"{"program":"flashjob-flasher","image":"registry/flasher:1"}"#;
    let flash = EspSerial::build(request(program_settings)).expect("built");
    assert_eq!(
        (flash.image.as_str(), flash.command),
        ("registry/flasher:1", COMMAND.map(literal).into())
    );
    let nobody = EspSerial::build(request(r#"{"program":"flashjob-flasher"}"#));
    assert!(matches!(nobody, Err(PluginError::InvalidRequest(_))));
}

#[test]
fn settings_change_the_command_line() {
    let settings = r#"{"path":"/app.bin","chip":"esp32c3","baud":115200,
        "offset":"0x10000","runAsRoot":true}"#;
    let flash = EspSerial::build(request(settings)).expect("built");
    assert!(words(&flash).starts_with("--chip esp32c3 --port /dev/ttyUSB0 --baud 115200 "));
    assert!(words(&flash).ends_with(" 0x10000 /app.bin"));
    assert_eq!(flash.user, User::Root);
}

#[test]
fn a_device_whose_file_is_missing_or_no_path_is_refused() {
    for devnode in [None, Some("--help"), Some("")] {
        let properties =
            devnode.map(|path| ("UDEV_DEVNODE".to_owned(), path.to_owned())).into_iter().collect();
        let without =
            Request { device: Device { properties, ..request("{}").device }, ..request("{}") };
        assert!(matches!(
            EspSerial::build(without),
            Err(PluginError::InvalidRequest(text)) if text.contains("UDEV_DEVNODE")
        ));
    }
}

#[test]
fn every_fault_in_the_settings_is_named_with_its_path() {
    let settings = r#"{"a/b":1,"baud":0,"chip":"ESP 32","image":"","offset":"16",
        "path":"firmware.bin","runAsRoot":"yes","program":"dd","group":0,"args":["a",1],
        "registryAccess":1}"#;
    let Err(PluginError::InvalidSettings(faults)) = EspSerial::validate_settings(settings) else {
        panic!("accepted")
    };
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    let expected = [
        "/a~1b",
        "/args",
        "/baud",
        "/chip",
        "/group",
        "/image",
        "/offset",
        "/path",
        "/program",
        "/registryAccess",
        "/runAsRoot",
    ];
    assert_eq!(paths, expected);
    assert_eq!(EspSerial::validate_settings("{}"), Ok(()));
    assert!(EspSerial::validate_settings("[]").is_err());
}

#[test]
fn success_is_proof_a_wrong_call_ends_it_and_anything_else_is_tried_again() {
    let judged = |exit_code, message: &str| {
        let outcome = Outcome {
            exit_code,
            reason: "Error".into(),
            termination_message: message.into(),
            attempt: 1,
            reported_version: None,
        };
        EspSerial::judge(request("{}"), outcome).expect("judged")
    };
    assert_eq!(judged(Some(0), ""), Verdict::Flashed(Proof::Pod));
    assert_eq!(
        judged(Some(2), "Error: No such option: --chop"),
        Verdict::GiveUp("Error: No such option: --chop".into())
    );
    let fatal =
        "A fatal error occurred: Failed to connect to Espressif device: No serial data received.";
    assert_eq!(
        judged(Some(2), &format!("esptool v5.1.0 Connecting...... {fatal} ")),
        Verdict::Retry(fatal.into())
    );
    assert_eq!(
        judged(Some(1), &format!("{}end", "é".repeat(5000))),
        Verdict::Retry(format!("{}end", "é".repeat(298)))
    );
    assert_eq!(judged(None, ""), Verdict::Retry("Error".into()));
    // This project's program reports the result in JSON; its exit status does not matter.
    let message = |code: &str, proven: bool| {
        format!(r#"{{"code": "{code}", "message": "it is so", "proven": {proven}}}"#)
    };
    assert_eq!(judged(Some(0), &message("Sent", true)), Verdict::Flashed(Proof::Pod));
    let unproven = Verdict::Flashed(Proof::ReportedVersion);
    assert_eq!(judged(Some(0), &message("Sent", false)), unproven);
    for code in ["WrongChip", "BadConfiguration", "NoPlatform", "DeviceRefused"] {
        let given_up = Verdict::GiveUp(format!("{code}: it is so"));
        assert_eq!(judged(Some(2), &message(code, false)), given_up);
    }
    for code in
        ["VerifyFailed", "TransferBroken", "DeviceUnreachable", "DeviceBusy", "Interrupted"]
    {
        let again = Verdict::Retry(format!("{code}: it is so"));
        assert_eq!(judged(Some(2), &message(code, false)), again);
    }
}

fn file(settings: &str, beginning: &[u8]) -> FirmwareFile {
    FirmwareFile {
        device_type: DEVICE_TYPE.into(),
        firmware: "registry/firmware:2".into(),
        version: "2".into(),
        settings: settings.into(),
        name: "firmware/firmware.bin".into(),
        size: 4096,
        beginning: beginning.to_vec(),
    }
}

#[test]
fn an_image_is_compared_with_the_chip_of_the_settings_and_raw_bytes_are_not_judged() {
    // An image for an ESP32-C3.
    let mut image = [0; 64];
    (image[0], image[1], image[12]) = (0xe9, 1, 5);
    let inspected = |settings, beginning: &[u8]| {
        EspSerial::inspect_firmware(file(settings, beginning)).expect("inspected")
    };
    let refusal = |settings| inspected(settings, &image).expect("an image").refusal;
    assert_eq!((refusal("{}"), refusal(r#"{"chip":"esp32c3"}"#)), (None, None));
    assert!(refusal(r#"{"chip":"esp32s3"}"#).is_some_and(|text| text.contains("ESP32-C3")));
    assert_eq!(inspected("{}", &[0xff; 4096]), None);
    let elf = inspected("{}", b"\x7fELF").and_then(|inspection| inspection.refusal);
    assert!(elf.is_some_and(|text| text.contains("ELF file")));
    let elsewhere = r#"{"program":"esptool","path":"/opt/firmware.bin","chip":"esp32s3"}"#;
    assert_eq!(inspected(elsewhere, &image), None);
}
