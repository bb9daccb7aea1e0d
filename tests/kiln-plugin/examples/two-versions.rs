//! One component for operators of two versions of the contract. Its answer states the version by
//! which it was called.
#![cfg(target_family = "wasm")]

wit_bindgen::generate!({
    inline: "
        package tests:two-versions;

        world plugin {
            import flashjob:plugin/log@0.1.0;
            export flashjob:plugin/device-plugin@0.1.0;
            export flashjob:plugin/device-plugin@0.2.0;
        }
    ",
    path: ["../../wit/0.1.0", "../../wit/0.2.0"],
    world: "tests:two-versions/plugin",
    generate_all,
});

use flashjob::plugin0_1_0::log;

struct TwoVersions;

macro_rules! answers {
    ($package:ident, $version:literal) => {
        const _: () = {
            use exports::flashjob::$package::device_plugin::Guest;
            use flashjob::$package::types::{
                FlashPod, Outcome, PluginError, PluginInfo, Request, Verdict,
            };

            impl Guest for TwoVersions {
                fn describe() -> PluginInfo {
                    log::write(log::Level::Info, $version);
                    let (name, kind) = ("two-versions".into(), "kiln".into());
                    PluginInfo {
                        name,
                        version: $version.into(),
                        device_types: vec![kind],
                        settings_schema: "{}".into(),
                    }
                }

                fn validate_settings(_: String) -> Result<(), PluginError> {
                    Ok(())
                }

                fn build(_: Request) -> Result<FlashPod, PluginError> {
                    Err(PluginError::Internal($version.into()))
                }

                fn judge(_: Request, _: Outcome) -> Result<Verdict, PluginError> {
                    Err(PluginError::Internal($version.into()))
                }
            }
        };
    };
}

answers!(plugin0_1_0, "0.1.0");
answers!(plugin0_2_0, "0.2.0");

export!(TwoVersions);
