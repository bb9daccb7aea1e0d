//! Components of different versions of the contract under one engine.

use super::*;
use crate::types::FirmwareFile;

/// Returns a component in which one text is replaced by another of the same length: only names
/// change.
fn renamed(name: &str, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = component(name);
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, text)| *text == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{name} has no {from}");
    places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
    bytes
}

fn refused(bytes: &[u8]) -> EngineError {
    admitted(&engine(), "the component", bytes)
        .map(|compiled| compiled.wit_version())
        .expect_err("it is refused")
}

#[tokio::test]
async fn components_of_two_versions_answer_side_by_side_in_one_engine() {
    let engine = engine();
    let [old, new] = ["toaster", "kiln"]
        .map(|name| admitted(&engine, name, &component(name)).expect("a plugin"));
    assert_eq!((old.wit_version(), new.wit_version()), ("0.1.0", "0.2.0"));
    let (request, outcome) = (request(), outcome(0));
    let build = async |plugin| {
        engine
            .call(plugin, Call::Build(&request))
            .await
            .and_then(Answer::into_flash_pod)
            .expect("a flash Pod")
    };
    let (of_old, of_new) = tokio::join!(build(&old), build(&new));
    assert_eq!((of_old.working_directory, of_old.ports[0].name.as_str()), (None, "crumbs"));
    assert_eq!(
        (of_new.working_directory.as_deref(), of_new.ports[0].name.as_str()),
        (Some("/kiln"), "embers")
    );
    for plugin in [&old, &new] {
        engine
            .call(plugin, Call::ValidateSettings("{}"))
            .await
            .and_then(Answer::into_unit)
            .expect("no settings");
        let judged = engine
            .call(plugin, Call::Judge(&request, &outcome))
            .await
            .and_then(Answer::into_verdict);
        assert_eq!(judged, Ok(Verdict::Flashed(crate::types::Proof::Pod)));
    }
}

#[tokio::test]
async fn the_limits_hold_for_the_later_version_as_for_the_first() {
    let (engine, plugin) = plugin("overheats").await;
    let validate = |settings| engine.call(&plugin, Call::ValidateSettings(settings));
    let (looped, eaten, long) =
        (validate("loop").await, validate("memory").await, validate("string").await);
    assert!(matches!(looped, Err(CallError::TimedOut { .. })), "{looped:?}");
    assert!(matches!(eaten, Err(CallError::OutOfMemory { .. })), "{eaten:?}");
    assert!(matches!(long, Err(CallError::AnswerRejected(_))), "{long:?}");
    let (flooded, burst) = (validate("flood").await, validate("trap").await);
    assert!(
        matches!(&flooded, Err(CallError::LimitReached(text)) if text.contains("lines")),
        "{flooded:?}"
    );
    assert!(matches!(burst, Err(CallError::Trapped(_))), "{burst:?}");
    validate("a little may be said").await.expect("within the limits");
}

#[tokio::test]
async fn a_working_directory_is_an_absolute_path_within_the_container() {
    let (engine, plugin) = plugin("overheats").await;
    let build = async |directory: &str| {
        let request = Request { firmware: directory.to_owned(), ..request() };
        engine
            .call(&plugin, Call::Build(&request))
            .await
            .and_then(Answer::into_flash_pod)
            .map(|flash| flash.working_directory)
    };
    for good in ["/", "/kiln", "/kiln/of clay", "/$(HOME)"] {
        assert_eq!(build(good).await, Ok(Some(good.to_owned())));
    }
    for odd in [
        "",
        "kiln",
        "./kiln",
        "/kiln/../etc",
        "/kiln:/etc",
        "/kiln\0",
        &format!("/{}", "x".repeat(512)),
    ] {
        let rejected = build(odd).await;
        assert!(
            matches!(
                &rejected,
                Err(CallError::AnswerRejected(text)) if text.starts_with("working-directory ")
            ),
            "{odd}: {rejected:?}"
        );
    }
}

#[test]
fn a_component_of_a_version_that_is_not_served_is_told_which_it_is_for_and_which_are() {
    for unserved in ["0.4.0", "0.2.1", "1.0.0"] {
        let error = refused(&renamed("kiln", "@0.2.0", &format!("@{unserved}")));
        assert!(matches!(error, EngineError::NotServed { .. }), "{error:?}");
        let expected = format!(
            "the component is built for flashjob:plugin@{unserved}; supported are 0.1.0, 0.2.0 \
             and 0.3.0:"
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[test]
fn a_component_of_no_version_does_not_fit_the_contract() {
    let error = refused(b"\0asm\x0d\0\x01\0");
    assert!(matches!(error, EngineError::World(..)), "{error:?}");
    assert!(error.to_string().contains("exports no flashjob:plugin/device-plugin@"), "{error}");
}

#[tokio::test]
async fn a_component_of_two_versions_is_asked_by_the_later_that_is_served() {
    let engine = engine();
    let later_unserved = renamed("two-versions", "@0.2.0", "@0.4.0");
    for (bytes, version) in [(component("two-versions"), "0.2.0"), (later_unserved, "0.1.0")] {
        let plugin = admitted(&engine, "two-versions", &bytes).expect("a plugin");
        assert_eq!(plugin.wit_version(), version);
        let info = engine
            .call(&plugin, Call::Describe)
            .await
            .and_then(Answer::into_info)
            .expect("what it is");
        assert_eq!(info.version.to_string(), version, "the version by which it was asked");
    }
}

#[test]
fn a_component_that_mixes_versions_is_refused() {
    for import in ["log", "types"] {
        let (own_import, other_import) =
            (format!("flashjob:plugin/{import}@0.2.0"), format!("flashjob:plugin/{import}@0.1.0"));
        let error = refused(&renamed("kiln", &own_import, &other_import));
        assert!(matches!(error, EngineError::World(..)), "{error:?}");
        let expected = format!(
            "it exports device-plugin version 0.2.0, but imports {other_import}; build it against \
             one version"
        );
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
}

/// The engine checks the component's types at its first call, which is part of loading. The error
/// names them, and no value is read as another type.
#[tokio::test]
async fn a_component_that_only_claims_another_version_never_answers() {
    let engine = engine();
    for (name, from, to) in [("toaster", "@0.1.0", "@0.2.0"), ("kiln", "@0.2.0", "@0.1.0")] {
        let plugin = admitted(&engine, name, &renamed(name, from, to)).expect("its names fit");
        let described = engine.call(&plugin, Call::Describe).await;
        assert!(
            matches!(&described, Err(CallError::Trapped(text)) if text.contains("record")),
            "{name}: {described:?}"
        );
    }
}

fn firmware(name: &str, beginning: &[u8]) -> FirmwareFile {
    FirmwareFile {
        device_type: "esp32".into(),
        firmware: "firmware:1".into(),
        version: "1".into(),
        settings: "{}".into(),
        name: name.into(),
        size: 1 << 20,
        beginning: beginning.to_vec(),
    }
}

/// The third component has the types of 0.2.0, to which 0.3.0 only adds an optional export.
#[tokio::test]
async fn components_without_the_inspector_answer_as_before_and_inspect_nothing() {
    let engine = engine();
    for (bytes, version) in [
        (component("toaster"), "0.1.0"),
        (component("kiln"), "0.2.0"),
        (renamed("kiln", "@0.2.0", "@0.3.0"), "0.3.0"),
    ] {
        let plugin = admitted(&engine, "old", &bytes).expect("a plugin");
        assert_eq!((plugin.wit_version(), plugin.inspects()), (version, false));
        let file = firmware("firmware/a.bin", &[0xe9; 64]);
        let inspected = engine.call(&plugin, Call::Inspect(&file)).await;
        assert_eq!(inspected.and_then(Answer::into_inspection), Ok(None), "{version}");
        let request = request();
        let built = engine.call(&plugin, Call::Build(&request)).await;
        assert!(built.and_then(Answer::into_flash_pod).is_ok(), "{version}");
    }
}

#[tokio::test]
async fn a_component_with_the_inspector_says_what_it_reads_in_firmware() {
    let (engine, plugin) = plugin("esp32").await;
    assert_eq!((plugin.wit_version(), plugin.inspects()), ("0.3.0", true));
    let mut image = [0; crate::types::BEGINNING_BYTES];
    // An image for an ESP32-S3, with one segment.
    (image[0], image[1], image[12]) = (0xe9, 1, 9);
    let file = firmware("firmware/a.bin", &image);
    let inspected = engine.call(&plugin, Call::Inspect(&file)).await;
    let inspected = inspected.and_then(Answer::into_inspection).expect("an answer");
    let inspection = inspected.expect("it was read");
    assert_eq!(inspection.chip.as_deref(), Some("ESP32-S3"));
    assert_eq!(inspection.device_types, ["esp32s3*".parse().expect("types")]);
    let refusal = inspection.refusal.expect("a refusal");
    assert!(refusal.contains("device type esp32 is ESP32;"), "{refusal}");
}

#[tokio::test]
async fn an_inspection_is_bounded_and_without_control_characters() {
    let (engine, plugin) = plugin("breaks-limits").await;
    let inspect = async |name: &str| {
        let file = firmware(name, &[]);
        let answer = engine.call(&plugin, Call::Inspect(&file)).await;
        answer.and_then(Answer::into_inspection)
    };
    let inspection = inspect("say \u{1b}[31m").await.expect("an answer").expect("an inspection");
    assert_eq!(inspection.refusal.as_deref(), Some("say  [31m"));
    for name in ["list", "string", "many", "long"] {
        let rejected = inspect(name).await;
        assert!(matches!(rejected, Err(CallError::AnswerRejected(_))), "{name}: {rejected:?}");
    }
}
