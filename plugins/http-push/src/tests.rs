use flashjob_plugin_sdk::{Arg, Device, Proof};

use super::*;

fn request(device_type: &str, settings: &str) -> Request {
    Request {
        namespace: "fleet".into(),
        job: "job".into(),
        device: Device {
            uid: "uid".into(),
            name: "akri-plug-1".into(),
            endpoint: Some("10.0.0.7".into()),
            device_type: device_type.into(),
            application_type: None,
            reported_version: None,
            nodes: vec!["node".into()],
            properties: Vec::new(),
        },
        firmware: "registry.example/firmware:2".into(),
        version: "2".into(),
        image: Some("registry.example/flasher:1".into()),
        settings: settings.into(),
        attempt: 1,
    }
}

fn arguments(device_type: &str, settings: &str) -> Vec<String> {
    let flash = HttpPush::build(request(device_type, settings)).expect("built");
    let text = |arg: Arg| match arg {
        Arg::Literal(text) => text,
        Arg::ExternalAddress => panic!("no argument is an address"),
    };
    flash.args.into_iter().map(text).collect()
}

#[test]
fn a_device_type_that_begins_with_a_presets_name_takes_it_and_settings_are_laid_on_top() {
    let words = arguments("wled-strip", r#"{"versionPointer": "/release"}"#);
    for expected in ["--body=multipart", "--field=update", "--version-pointer=/release"] {
        assert!(words.contains(&expected.to_owned()), "{expected}: {words:?}");
    }
    assert!(arguments("wled", r#"{"preset": "none"}"#).is_empty());
    assert_eq!(
        arguments(
            "http-lamp",
            r#"{"path": "/ota", "headers": {"X-Key": "a: b"}, "success": [302]}"#
        ),
        ["--path=/ota", "--header=X-Key: a: b", "--success=302"]
    );
}

#[test]
fn only_a_device_that_fetches_needs_an_address_and_only_what_is_asked_for_is_mounted() {
    let flash = HttpPush::build(request("tasmota", r#"{"login": true}"#)).expect("built");
    assert_eq!((flash.ports[0].number, flash.needs_ip), (8080, true));
    assert_eq!(flash.secrets, [("device-login".to_owned(), "/etc/flashjob/device".to_owned())]);
    let flash = HttpPush::build(request("wled", "{}")).expect("built");
    assert!(flash.ports.is_empty() && !flash.needs_ip && flash.secrets.is_empty());
    assert!(flash.env.iter().all(|(name, _)| name != "EXTERNAL_IP"));
}

#[test]
fn settings_that_cannot_be_are_named() {
    for (settings, path) in [
        (r#"{"preset": "marlin"}"#, "/preset"),
        (r#"{"body": "ftp"}"#, "/body"),
        (r#"{"method": "PATCH"}"#, "/method"),
        (r#"{"path": "update"}"#, "/path"),
        (r#"{"body": "url", "path": "/ota"}"#, "/path"),
        (r#"{"versionPointer": "/ver"}"#, "/versionPointer"),
        (r#"{"headers": {"a": 1}}"#, "/headers"),
        (r#"{"success": [20]}"#, "/success"),
        (r#"{"unknown": 1}"#, "/unknown"),
        ("[]", ""),
    ] {
        let Err(PluginError::InvalidSettings(faults)) = HttpPush::validate_settings(settings)
        else {
            panic!("{settings} is taken")
        };
        assert_eq!(faults[0].path, path, "{settings}: {faults:?}");
    }
}

#[test]
fn without_an_image_or_an_endpoint_nothing_is_built_and_the_missing_one_is_named() {
    let no_image = Request { image: None, ..request("wled", "{}") };
    let refused = HttpPush::build(no_image);
    assert!(
        matches!(refused, Err(PluginError::InvalidRequest(text)) if text.contains("flashImage"))
    );
    let mut no_endpoint = request("wled", "{}");
    no_endpoint.device.endpoint = None;
    let refused = HttpPush::build(no_endpoint);
    assert!(
        matches!(refused, Err(PluginError::InvalidRequest(text)) if text.contains("HOST_ENDPOINT"))
    );
}

#[test]
fn a_version_that_was_read_back_is_the_proof() {
    let outcome = Outcome {
        exit_code: Some(0),
        reason: "Completed".into(),
        termination_message: r#"{"code": "Sent", "proven": true}"#.into(),
        attempt: 1,
        reported_version: None,
    };
    assert_eq!(HttpPush::judge(request("wled", "{}"), outcome), Ok(Verdict::Flashed(Proof::Pod)));
}
