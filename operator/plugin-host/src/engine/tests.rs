//! Tests of the engine with components of other languages and of every contract version, which
//! `tests/wasm/build.sh` builds.

mod versions;

use super::*;
use crate::types::{Device, Outcome, PluginError, Request, Verdict};

fn engine() -> Engine {
    Engine::new(Limits::default(), PathBuf::new()).expect("an engine")
}

fn component(name: &str) -> Vec<u8> {
    let path = format!("{}/../../target/plugins/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}; run make plugins"))
}

fn admitted(engine: &Engine, name: &str, component: &[u8]) -> Result<Compiled, EngineError> {
    let code = engine.engine.precompile_component(component).expect("a component");
    engine.admit(&code, name)
}

async fn plugin(name: &str) -> (Engine, Compiled) {
    let engine = engine();
    let compiled = admitted(&engine, name, &component(name)).expect("a plugin");
    (engine, compiled)
}

fn request() -> Request {
    let device = Device {
        uid: "uid".into(),
        name: "name".into(),
        endpoint: Some("10.0.0.1:80".into()),
        device_type: "type".into(),
        application_type: None,
        reported_version: None,
        nodes: vec!["node".into()],
        properties: Vec::new(),
    };
    let (namespace, job, firmware, version) =
        ("default".into(), "job".into(), "firmware:1".into(), "1".into());
    Request {
        namespace,
        job,
        device,
        firmware,
        version,
        image: None,
        settings: "{}".into(),
        attempt: 1,
    }
}

fn outcome(exit_code: i32) -> Outcome {
    let (reason, termination_message) = ("Error".into(), "no route".into());
    Outcome {
        exit_code: Some(exit_code),
        reason,
        termination_message,
        attempt: 1,
        reported_version: None,
    }
}

#[tokio::test]
async fn plugins_in_go_and_javascript_answer_every_question() {
    for name in ["kettle", "lamp"] {
        let (engine, plugin) = plugin(name).await;
        let (good, flashed, failed) = (request(), outcome(0), outcome(1));
        let nowhere =
            Request { device: Device { endpoint: None, ..good.device.clone() }, ..good.clone() };
        let ask = |call| engine.call(&plugin, call);
        let info = ask(Call::Describe).await.and_then(Answer::into_info).expect("what it is");
        assert_eq!((info.name.as_str(), info.device_types.len()), (name, 1));
        ask(Call::ValidateSettings("{}")).await.expect("no settings");
        let refused = ask(Call::ValidateSettings(r#"{"other":1}"#)).await;
        assert!(
            matches!(refused, Err(CallError::Refused(PluginError::InvalidSettings(_)))),
            "{refused:?}"
        );
        let flash =
            ask(Call::Build(&good)).await.and_then(Answer::into_flash_pod).expect("a flash Pod");
        assert_eq!((flash.env.len(), flash.ports.len(), flash.needs_ip), (7, 1, true));
        let refused = ask(Call::Build(&nowhere)).await;
        assert!(
            matches!(refused, Err(CallError::Refused(PluginError::UnsupportedDevice(_)))),
            "{refused:?}"
        );
        let judged = ask(Call::Judge(&good, &flashed)).await.and_then(Answer::into_verdict);
        assert_eq!(judged, Ok(Verdict::Flashed(crate::types::Proof::ReportedVersion)));
        let judged = ask(Call::Judge(&good, &failed)).await.and_then(Answer::into_verdict);
        assert_eq!(judged, Ok(Verdict::Retry("no route".into())));
    }
}

#[tokio::test]
async fn what_loops_waits_or_talks_without_end_is_stopped_in_every_language() {
    for name in ["hostile-go", "hostile-javascript"] {
        let (engine, plugin) = plugin(name).await;
        let validate = |settings| engine.call(&plugin, Call::ValidateSettings(settings));
        let looped = validate("loop").await;
        assert!(matches!(looped, Err(CallError::TimedOut { .. })), "{name}: {looped:?}");
        let flooded = validate("flood").await;
        assert!(
            matches!(&flooded, Err(CallError::LimitReached(text)) if text.contains("lines")),
            "{name}: {flooded:?}"
        );
        validate("say").await.expect("a little may be said");
    }
    let (engine, plugin) = plugin("hostile-go").await;
    let slept = engine.call(&plugin, Call::ValidateSettings("sleep")).await;
    assert!(
        matches!(&slept, Err(CallError::LimitReached(text)) if text.contains("without waiting")),
        "{slept:?}"
    );
    let panicked = engine.call(&plugin, Call::ValidateSettings("panic")).await;
    assert_eq!(
        panicked.expect_err("a failure"),
        CallError::Refused(PluginError::Internal("panic: a panic".into()))
    );
}

#[tokio::test]
async fn wasi_has_nothing_behind_it_and_every_call_finds_the_same() {
    for (name, expected) in [
        ("hostile-go", "environment 0, arguments 0, files 0, dialed false, now 1000000000, "),
        ("hostile-javascript", "now 1000, "),
    ] {
        let (engine, plugin) = plugin(name).await;
        let first =
            engine.call(&plugin, Call::ValidateSettings("look")).await.expect_err("what it saw");
        assert!(first.to_string().contains(expected), "{name}: {first}");
        assert_eq!(
            engine.call(&plugin, Call::ValidateSettings("look")).await.expect_err("what it saw"),
            first,
            "{name}"
        );
    }
}
