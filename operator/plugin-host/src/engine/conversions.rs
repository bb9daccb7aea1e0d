//! Converts between the host's own types and those of one version of the contract, and checks
//! every bound of an answer. Each version includes this module as a child, and defines what
//! differs between versions in its own module.

#[cfg(feature = "fuzzing")]
#[expect(
    clippy::duplicate_mod,
    reason = "made-up answers are in the types of each version of the contract"
)]
#[path = "fuzzing.rs"]
pub(in crate::engine) mod fuzzing;

use flashjob_types::CallError;
use wasmtime::Store;
use wasmtime::component::{HasSelf, Linker};

use super::generated::exports::flashjob::plugin::device_plugin as exported;
use super::generated::flashjob::plugin::{log, types};
use super::generated::{Plugin, PluginPre};
use crate::engine::bounds::{self, Bounds};
use crate::engine::call::{Answer, Call};
use crate::engine::state::State;
use crate::types::{
    Arg, Device, EnvValue, FieldError, FlashPod, Outcome, PluginError, PluginInfo, Port, Proof,
    Protocol, Request, Scratch, SecretMount, User, Verdict,
};

impl types::Host for State {}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        Ok(self.log.line(level, &message)?)
    }
}

pub(in crate::engine) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    Plugin::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

/// Instantiates the component and calls it. The outer error is the engine's, the inner one the
/// plugin's.
pub(in crate::engine) async fn ask(
    store: &mut Store<State>,
    plugin: &PluginPre<State>,
    call: Call<'_>,
    answer_limit: usize,
) -> wasmtime::Result<Result<Answer, CallError>> {
    let instance = plugin.instantiate_async(&mut *store).await?;
    let guest = instance.flashjob_plugin_device_plugin();
    let mut bounds = Bounds::new(answer_limit);
    Ok(match call {
        // A description has no error variant: a plugin that cannot describe itself can only trap.
        Call::Describe => info(guest.call_describe(store).await?, &mut bounds).map(Answer::Info),
        Call::ValidateSettings(settings) => {
            answer(guest.call_validate_settings(store, settings).await?, &mut bounds, |(), _| {
                Ok(Answer::Unit)
            })
        }
        Call::Build(of) => {
            let built = guest.call_build(store, &request(of)).await?;
            answer(built, &mut bounds, |flash, bounds| {
                flash_pod(flash, bounds).map(|flash| Answer::FlashPod(Box::new(flash)))
            })
        }
        Call::Judge(of, how) => {
            let judged = guest.call_judge(store, &request(of), &outcome(how)).await?;
            answer(judged, &mut bounds, |of, bounds| verdict(of, bounds).map(Answer::Verdict))
        }
        // The inspector has an interface of its own, which is called elsewhere.
        Call::Inspect(_) => Ok(Answer::Inspection(None)),
    })
}

/// Converts an answer, or the error returned instead.
pub(in crate::engine) fn answer<T>(
    answer: Result<T, exported::PluginError>,
    bounds: &mut Bounds,
    convert: impl FnOnce(T, &mut Bounds) -> Result<Answer, CallError>,
) -> Result<Answer, CallError> {
    match answer {
        Ok(answer) => convert(answer, bounds),
        Err(error) => {
            Err(plugin_error(error, bounds).map_or_else(|rejected| rejected, CallError::Refused))
        }
    }
}

fn request(of: &Request) -> types::Request {
    let Device {
        uid,
        name,
        endpoint,
        device_type,
        application_type,
        reported_version,
        nodes,
        properties,
    } = of.device.clone();
    types::Request {
        namespace: of.namespace.clone(),
        job: of.job.clone(),
        device: types::Device {
            uid,
            name,
            endpoint,
            device_type,
            application_type,
            reported_version,
            nodes,
            properties,
        },
        firmware: of.firmware.clone(),
        version: of.version.clone(),
        image: of.image.clone(),
        settings: of.settings.clone(),
        attempt: of.attempt,
    }
}

fn outcome(of: &Outcome) -> types::Outcome {
    types::Outcome {
        exit_code: of.exit_code,
        reason: of.reason.clone(),
        termination_message: of.termination_message.clone(),
        attempt: of.attempt,
        reported_version: of.reported_version.clone(),
    }
}

fn info(of: types::PluginInfo, bounds: &mut Bounds) -> Result<PluginInfo, CallError> {
    let rejected = |message: String| CallError::AnswerRejected(message);
    bounds.count("device-types", of.device_types.len(), 256)?;
    let version = bounds.text("version", of.version, 64)?;
    let types = of
        .device_types
        .into_iter()
        .map(|text| text.parse().map_err(|error| rejected(format!("device-types: {error}"))));
    Ok(PluginInfo {
        name: bounds.text("name", of.name, 63)?,
        version: version.parse().map_err(|error| {
            rejected(format!("version {version:?} is not a semantic version: {error}"))
        })?,
        device_types: types.collect::<Result<_, _>>()?,
        settings_schema: bounds.text("settings-schema", of.settings_schema, 64 << 10)?,
    })
}

fn flash_pod(of: types::FlashPod, bounds: &mut Bounds) -> Result<FlashPod, CallError> {
    bounds.list("command", of.command.len())?;
    bounds.list("args", of.args.len())?;
    bounds.list("env", of.env.len())?;
    bounds.count("ports", of.ports.len(), 16)?;
    bounds.count("groups", of.groups.len(), 32)?;
    bounds.count("capabilities", of.capabilities.len(), 64)?;
    bounds.count("secrets", of.secrets.len(), 32)?;
    bounds.count("scratch", of.scratch.len(), 32)?;
    let working_directory = super::working_directory(&of);
    let flash = FlashPod {
        image: bounds.filled("image", of.image, 1024)?,
        command: of
            .command
            .into_iter()
            .map(|word| arg("command", word, bounds))
            .collect::<Result<_, _>>()?,
        args: of
            .args
            .into_iter()
            .map(|word| arg("args", word, bounds))
            .collect::<Result<_, _>>()?,
        env: of
            .env
            .into_iter()
            .map(|(name, value)| Ok((bounds.variable(name)?, env_value(value, bounds)?)))
            .collect::<Result<_, CallError>>()?,
        ports: of.ports.into_iter().map(|of| port(of, bounds)).collect::<Result<_, _>>()?,
        needs_ip: of.needs_ip,
        attach_device: of.attach_device,
        groups: of.groups,
        capabilities: of
            .capabilities
            .into_iter()
            .map(|name| bounds.capability(name))
            .collect::<Result<_, _>>()?,
        user: match of.user {
            types::User::ImageDefault => User::ImageDefault,
            // Uid 0 is root by another name, and needs the same grant.
            types::User::Uid(0) | types::User::Root => User::Root,
            types::User::Uid(uid) => User::Uid(uid),
        },
        secrets: of
            .secrets
            .into_iter()
            .map(|(slot, path)| {
                Ok(SecretMount {
                    slot: bounds.filled("slot", slot, 63)?,
                    path: bounds.path("secrets", path)?,
                })
            })
            .collect::<Result<_, CallError>>()?,
        scratch: of
            .scratch
            .into_iter()
            .map(|(path, mebibytes)| {
                Ok(Scratch {
                    path: bounds.path("scratch", path)?,
                    mebibytes: bounds.at_least_one("scratch", mebibytes)?,
                })
            })
            .collect::<Result<_, CallError>>()?,
        deadline_seconds: of
            .deadline_seconds
            .map(|seconds| bounds.at_least_one("deadline-seconds", seconds))
            .transpose()?,
        working_directory: working_directory
            .map(|path| bounds.directory("working-directory", path))
            .transpose()?,
    };
    // Of two variables with one name Kubernetes silently uses the last, so duplicates are
    // rejected.
    bounds::unique("env", flash.env.iter().map(|(name, _)| name.clone()))?;
    bounds::unique("ports", flash.ports.iter().map(|port| port.name.clone()))?;
    bounds::unique(
        "ports",
        flash.ports.iter().map(|port| format!("{} {:?}", port.number, port.protocol)),
    )?;
    let mounts = flash
        .secrets
        .iter()
        .map(|mount| mount.path.clone())
        .chain(flash.scratch.iter().map(|scratch| scratch.path.clone()));
    bounds::unique("mount paths", mounts)?;
    Ok(flash)
}

fn arg(list: &str, of: types::Arg, bounds: &mut Bounds) -> Result<Arg, CallError> {
    Ok(match of {
        types::Arg::Literal(text) => Arg::Literal(bounds.text(list, text, 64 << 10)?),
        types::Arg::ExternalAddress => Arg::ExternalAddress,
    })
}

fn env_value(of: types::EnvValue, bounds: &mut Bounds) -> Result<EnvValue, CallError> {
    Ok(match of {
        types::EnvValue::Literal(text) => EnvValue::Literal(bounds.text("env", text, 64 << 10)?),
        types::EnvValue::ExternalAddress => EnvValue::ExternalAddress,
        types::EnvValue::SecretKey((slot, key)) => EnvValue::SecretKey {
            slot: bounds.filled("slot", slot, 63)?,
            key: bounds.filled("key", key, 253)?,
        },
    })
}

fn port(of: types::Port, bounds: &mut Bounds) -> Result<Port, CallError> {
    let protocol = match of.protocol {
        types::Protocol::Tcp => Protocol::Tcp,
        types::Protocol::Udp => Protocol::Udp,
    };
    // Port 0 means any free port to a program; Kubernetes requires 1 to 65535.
    if of.number == 0 {
        return Err(CallError::AnswerRejected("ports: 0 is not a valid port".to_owned()));
    }
    Ok(Port { name: bounds.port_name(of.name)?, number: of.number, protocol })
}

fn verdict(of: types::Verdict, bounds: &mut Bounds) -> Result<Verdict, CallError> {
    Ok(match of {
        types::Verdict::Flashed(types::Proof::Pod) => Verdict::Flashed(Proof::Pod),
        types::Verdict::Flashed(types::Proof::ReportedVersion) => {
            Verdict::Flashed(Proof::ReportedVersion)
        }
        types::Verdict::Retry(text) => Verdict::Retry(bounds.message("verdict", &text, 4096)?),
        types::Verdict::GiveUp(text) => Verdict::GiveUp(bounds.message("verdict", &text, 4096)?),
    })
}

fn plugin_error(of: types::PluginError, bounds: &mut Bounds) -> Result<PluginError, CallError> {
    Ok(match of {
        types::PluginError::UnsupportedDevice(text) => {
            PluginError::UnsupportedDevice(bounds.message("error", &text, 4096)?)
        }
        types::PluginError::InvalidRequest(text) => {
            PluginError::InvalidRequest(bounds.message("error", &text, 4096)?)
        }
        types::PluginError::Internal(text) => {
            PluginError::Internal(bounds.message("error", &text, 4096)?)
        }
        types::PluginError::InvalidSettings(errors) => {
            bounds.count("field errors", errors.len(), 64)?;
            let errors = errors.into_iter().map(|error| {
                Ok::<_, CallError>(FieldError {
                    path: bounds.message("path", &error.path, 1024)?,
                    message: bounds.message("message", &error.message, 1024)?,
                })
            });
            PluginError::InvalidSettings(errors.collect::<Result<_, _>>()?)
        }
    })
}
