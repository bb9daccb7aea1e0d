//! Breaks the requested limit in the entry point that is called: settings, firmware, reason and
//! the name of a file specify it. For `describe`, which has no argument, a test writes the name of
//! the limit over [`DESCRIBE`] in the component.

use std::hint::black_box;

use flashjob_plugin_sdk::{
    FirmwareFile, FlashPod, Inspection, Outcome, Plugin, PluginError, PluginInfo, Proof, Request,
    Verdict, literal, log,
};

/// Sixteen bytes that occur nowhere else in the component.
static DESCRIBE: &[u8; 16] = b"describe:nothing";

struct Hostile;

impl Plugin for Hostile {
    fn describe() -> PluginInfo {
        let mode = black_box(DESCRIBE);
        let mut info = flashjob_hostile_plugins::describe("breaks-limits");
        info.settings_schema = broken(std::str::from_utf8(&mode[9..]).unwrap_or_default());
        if mode.ends_with(b"list   ") {
            info.device_types = vec!["x".to_owned(); LONG];
        }
        info
    }

    fn validate_settings(settings: &str) -> Result<(), PluginError> {
        let text = broken(settings);
        Err(PluginError::InvalidRequest(text))
    }

    fn build(request: Request) -> Result<FlashPod, PluginError> {
        let args = if request.firmware == "list" {
            vec![literal("x"); LONG]
        } else {
            vec![literal(broken(&request.firmware))]
        };
        Ok(FlashPod { args, ..FlashPod::new("image") })
    }

    fn judge(_: Request, outcome: Outcome) -> Result<Verdict, PluginError> {
        match broken(&outcome.reason) {
            text if text.is_empty() => Ok(Verdict::Flashed(Proof::Pod)),
            text => Ok(Verdict::Retry(text)),
        }
    }

    fn inspect_firmware(file: FirmwareFile) -> Result<Option<Inspection>, PluginError> {
        let device_types = match file.name.as_str() {
            "list" => vec!["x".to_owned(); LONG],
            "many" => vec!["x".to_owned(); 257],
            _ => Vec::new(),
        };
        let refusal = match file.name.as_str() {
            "long" => "x".repeat(1025),
            name if name.starts_with("say") => name.to_owned(),
            name => broken(name),
        };
        let refusal = Some(refusal).filter(|text| !text.is_empty());
        Ok(Some(Inspection { device_types, refusal, ..Inspection::new() }))
    }
}

/// Number of list entries that fit into the memory of a call, but not into the limit for copied
/// data.
const LONG: usize = 1_000_000;

fn broken(mode: &str) -> String {
    match mode.trim() {
        "loop" => loop {
            black_box(mode);
        },
        "deep" => deeper(1).to_string(),
        "memory" => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1_u8; 1 << 20]);
                black_box(&eaten);
            }
        }
        "string" => "x".repeat(40 << 20),
        "log" => {
            for _ in 0..1_000_000 {
                log::info("again");
            }
            String::new()
        }
        "trap" => panic!("this plugin always panics"),
        _ => String::new(),
    }
}

#[expect(unconditional_recursion, reason = "this is what it is for")]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    deeper(depth + 1) + frame[0]
}

flashjob_plugin_sdk::export!(Hostile);
