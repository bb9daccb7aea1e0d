//! Answers generated from any bytes, such as no sane plugin gives, and the rules that converted
//! answers must keep.

use std::collections::HashSet;

use arbitrary::{Arbitrary, Result, Unstructured};

use super::{Bounds, flash_pod, info, plugin_error, types, verdict};
use crate::types::{Arg, EnvValue, FlashPod};

/// Limit that is small enough for short answers to reach it.
const LIMIT: usize = 4096;

/// Converts an answer of each kind.
pub(in crate::engine) fn answer(bytes: &[u8]) {
    let mut source = Unstructured::new(bytes);
    // The answer ends where the bytes end.
    let _ = convert(&mut source);
}

fn convert(source: &mut Unstructured<'_>) -> Result<()> {
    let mut bounds = Bounds::new(LIMIT);
    match source.int_in_range(0..=3)? {
        0 => {
            if let Ok(info) = info(any_info(source)?, &mut bounds) {
                assert!(info.name.len() <= 63 && info.settings_schema.len() <= LIMIT, "{info:?}");
            }
        }
        1 => {
            if let Ok(flash) = flash_pod(any_flash_pod(source)?, &mut bounds) {
                check(&flash);
            }
        }
        2 => {
            let reason = match verdict(any_verdict(source)?, &mut bounds) {
                Ok(crate::types::Verdict::Retry(text) | crate::types::Verdict::GiveUp(text)) => {
                    text
                }
                _ => String::new(),
            };
            assert!(reason.len() <= LIMIT && !reason.chars().any(char::is_control), "{reason:?}");
        }
        _ => {
            if let Ok(error) = plugin_error(any_error(source)?, &mut bounds) {
                assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
            }
        }
    }
    Ok(())
}

fn check(flash: &FlashPod) {
    let words = flash
        .command
        .iter()
        .chain(&flash.args)
        .map(|arg| if let Arg::Literal(text) = arg { text.as_str() } else { "" });
    let values = flash.env.iter().map(|(_, value)| match value {
        EnvValue::Literal(text) => text.as_str(),
        EnvValue::SecretKey { key, .. } => key.as_str(),
        EnvValue::ExternalAddress => "",
    });
    let names = flash.env.iter().map(|(name, _)| name.as_str());
    let mounts = flash
        .secrets
        .iter()
        .map(|mount| &mount.path)
        .chain(flash.scratch.iter().map(|scratch| &scratch.path));
    let paths = mounts.clone().chain(&flash.working_directory);
    let all: Vec<&str> = words
        .chain(values)
        .chain(names.clone())
        .chain(paths.clone().map(String::as_str))
        .collect();
    assert!(all.iter().map(|text| text.len()).sum::<usize>() <= LIMIT, "{flash:?}");
    let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t' | '\r');
    assert!(!all.iter().any(|text| text.contains(odd)), "{flash:?}");
    assert_eq!(names.clone().collect::<HashSet<_>>().len(), names.count(), "{flash:?}");
    assert_eq!(mounts.clone().collect::<HashSet<_>>().len(), mounts.count(), "{flash:?}");
    assert!(
        paths
            .clone()
            .all(|path| path.starts_with('/') && !path.split('/').any(|part| part == "..")),
        "{flash:?}"
    );
    assert!(!flash.image.trim().is_empty() && flash.deadline_seconds != Some(0), "{flash:?}");
    assert!(flash.ports.iter().all(|port| port.number > 0), "{flash:?}");
}

fn many<'a, T>(
    source: &mut Unstructured<'a>,
    one: impl Fn(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut list = Vec::new();
    while !source.is_empty() && bool::arbitrary(source)? {
        list.push(one(source)?);
    }
    Ok(list)
}

/// Words that some field accepts, so that answers get past their first field.
const WORDS: [&str; 8] = ["A", "image", "/a", "/b/c", "tcp", "NET_ADMIN", "1.0.0", "esp32"];

fn text(source: &mut Unstructured<'_>) -> Result<String> {
    match WORDS.get(source.int_in_range(0..=11)?) {
        Some(word) => Ok((*word).to_owned()),
        None => source.arbitrary(),
    }
}

fn any_info(source: &mut Unstructured<'_>) -> Result<types::PluginInfo> {
    Ok(types::PluginInfo {
        name: text(source)?,
        version: text(source)?,
        device_types: many(source, text)?,
        settings_schema: text(source)?,
    })
}

fn any_arg(source: &mut Unstructured<'_>) -> Result<types::Arg> {
    Ok(if source.arbitrary()? {
        types::Arg::Literal(text(source)?)
    } else {
        types::Arg::ExternalAddress
    })
}

fn any_value(source: &mut Unstructured<'_>) -> Result<types::EnvValue> {
    Ok(match source.int_in_range(0..=2)? {
        0 => types::EnvValue::Literal(text(source)?),
        1 => types::EnvValue::ExternalAddress,
        _ => types::EnvValue::SecretKey((text(source)?, text(source)?)),
    })
}

fn any_port(source: &mut Unstructured<'_>) -> Result<types::Port> {
    let protocol = if source.arbitrary()? { types::Protocol::Tcp } else { types::Protocol::Udp };
    Ok(types::Port { name: text(source)?, number: source.arbitrary()?, protocol })
}

fn any_flash_pod(source: &mut Unstructured<'_>) -> Result<types::FlashPod> {
    Ok(flash_pod_record! {
        image: text(source)?,
        command: many(source, any_arg)?,
        args: many(source, any_arg)?,
        env: many(source, |source| Ok((text(source)?, any_value(source)?)))?,
        ports: many(source, any_port)?,
        needs_ip: source.arbitrary()?,
        attach_device: source.arbitrary()?,
        groups: many(source, u32::arbitrary)?,
        capabilities: many(source, text)?,
        user: match source.int_in_range(0..=2)? {
            0 => types::User::ImageDefault,
            1 => types::User::Uid(source.arbitrary()?),
            _ => types::User::Root,
        },
        secrets: many(source, |source| Ok((text(source)?, text(source)?)))?,
        scratch: many(source, |source| Ok((text(source)?, source.arbitrary()?)))?,
        deadline_seconds: source.arbitrary()?;
        working_directory: if source.arbitrary()? { Some(text(source)?) } else { None }
    })
}

fn any_verdict(source: &mut Unstructured<'_>) -> Result<types::Verdict> {
    Ok(match source.int_in_range(0..=2)? {
        0 => types::Verdict::Flashed(types::Proof::Pod),
        1 => types::Verdict::Retry(text(source)?),
        _ => types::Verdict::GiveUp(text(source)?),
    })
}

fn any_error(source: &mut Unstructured<'_>) -> Result<types::PluginError> {
    Ok(match source.int_in_range(0..=3)? {
        0 => types::PluginError::UnsupportedDevice(text(source)?),
        1 => types::PluginError::InvalidRequest(text(source)?),
        2 => types::PluginError::Internal(text(source)?),
        _ => types::PluginError::InvalidSettings(many(source, |source| {
            Ok(types::FieldError { path: text(source)?, message: text(source)? })
        })?),
    })
}
