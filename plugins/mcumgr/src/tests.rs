use flashjob_plugin_sdk::Device;

use super::*;

fn request(properties: &[(&str, &str)], endpoint: Option<&str>) -> Request {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Request {
        namespace: "fleet".into(),
        job: "job".into(),
        device: Device {
            uid: "uid".into(),
            name: "akri-nrf-1".into(),
            endpoint: endpoint.map(str::to_owned),
            device_type: "nrf52840".into(),
            application_type: None,
            reported_version: None,
            nodes: vec!["node".into()],
            properties: properties.iter().map(owned).collect(),
        },
        firmware: "registry.example/firmware:2".into(),
        version: "2.0.0".into(),
        image: Some("registry.example/flasher:1".into()),
        settings: r#"{"imageNumber": 1, "restartSeconds": 300}"#.into(),
        attempt: 1,
    }
}

#[test]
fn a_device_on_the_network_needs_nothing_and_one_on_a_port_is_attached() {
    let flash = Mcumgr::build(request(&[], Some("10.0.0.7"))).expect("built");
    assert!(!flash.attach_device && flash.groups.is_empty() && flash.ports.is_empty());
    assert_eq!(flash.args, ["--image-number=1", "--restart-timeout=300s"].map(literal));
    let flash = Mcumgr::build(request(&[("UDEV_DEVNODE", "/dev/ttyACM0")], None)).expect("built");
    assert!(flash.attach_device && flash.groups == [20]);
    let value = EnvValue::Literal("/dev/ttyACM0".into());
    assert!(flash.env.contains(&("UDEV_DEVNODE".to_owned(), value)));
    for refused in [request(&[], None), request(&[("UDEV_DEVNODE", "-x")], None)] {
        assert!(matches!(Mcumgr::build(refused), Err(PluginError::InvalidRequest(_))));
    }
}

#[test]
fn settings_that_cannot_be_are_refused_and_a_device_that_went_back_is_given_up() {
    for settings in [r#"{"baud": 0}"#, r#"{"image": ""}"#, r#"{"speed": 1}"#, "7"] {
        let refused = Mcumgr::validate_settings(settings);
        assert!(matches!(refused, Err(PluginError::InvalidSettings(_))), "{settings}");
    }
    let outcome = Outcome {
        exit_code: Some(15),
        reason: "Error".into(),
        termination_message: r#"{"code": "Reverted", "message": "it runs 1.0.0 again"}"#.into(),
        attempt: 1,
        reported_version: None,
    };
    let judged = Mcumgr::judge(request(&[], Some("10.0.0.7")), outcome);
    assert_eq!(judged, Ok(Verdict::GiveUp("Reverted: it runs 1.0.0 again".into())));
}
