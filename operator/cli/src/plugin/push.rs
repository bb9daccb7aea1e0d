//! `plugin push`: publishes a component from a file to a registry, after a check against the
//! contract.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use flashjob_plugin_host::{Artifact, Plugin, Reference};
use jiff::Timestamp;
use serde_json::json;

use super::inspect;
use crate::failure::Failure;
use crate::report::{Report, Rows};
use crate::source::{ComponentSource, RegistryOptions, TrustOptions, reference};

const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";

/// Publish a component.
#[derive(Debug, Args)]
pub struct Push {
    /// The component.
    file: String,
    /// host/repository:tag
    reference: String,
    /// An annotation of the artifact, as org.opencontainers.image.source=https://…; may be given
    /// several times.
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// Publish it though it does not fit the contract, breaks, or has a version that is not the
    /// tag's.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    registry: RegistryOptions,
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) async fn run(command: &Push) -> Result<Report, Failure> {
    let Reference::File { path, .. } = reference(&command.file)? else {
        return Err(Failure::usage(format!(
            "{} is not a file; name the component that plugin build wrote",
            command.file
        )));
    };
    let to: Reference =
        command.reference.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let Reference::Registry { host, repository, tag: Some(tag), digest: None } = &to else {
        return Err(Failure::usage(format!(
            "{to} is not host/repository:tag; the digest comes from what is pushed"
        )));
    };
    let file =
        ComponentSource::new(&command.file, &command.registry, &TrustOptions::default()).await?;
    let verified = file.verify().await?;
    // Started before it is published: what the operator would refuse to load is found here, not on
    // each cluster that pulls it.
    let plugin = match file
        .start(&verified)
        .await
        .and_then(|plugin| suits_tag(&plugin, tag).map(|()| plugin))
    {
        Ok(plugin) => Some(plugin),
        Err(failure) if command.force => {
            tell!("kubectl flashjob: published anyway: {}", failure.message);
            None
        }
        Err(failure) => {
            return Err(Failure {
                message: format!(
                    "{}; nothing was published (--force publishes anyway)",
                    failure.message
                ),
                ..failure
            });
        }
    };
    let artifact = Artifact {
        component: verified.content(),
        interface: plugin.as_ref().map(Plugin::interface),
        created: created()?,
        annotations: annotations(command, &path, plugin.as_ref()),
    };
    let registry =
        ComponentSource::of(to.clone(), &command.registry, &TrustOptions::default()).await?;
    let digest = registry.host.push((host, repository, tag), &artifact, registry.logins()).await?;
    // By digest, because somebody can move the tag between the push and the signature.
    let pinned = format!("{host}/{repository}@{digest}");
    let mut rows = Rows::default();
    rows.row("pushed", &to)
        .row("digest", &digest)
        .row("size", inspect::size(artifact.component.len()));
    rows.row("next", format!("cosign sign --key cosign.key {pinned}"));
    let info = plugin.as_ref().map(Plugin::info);
    let json = json!({
        "reference": to.to_string(), "digest": digest, "pinned": pinned,
        "size": artifact.component.len(), "name": info.map(|info| &info.name),
        "version": info.map(|info| &info.version),
        "annotations": artifact.annotations,
    });
    Ok(Report::new(rows.to_string(), json))
}

/// Checks that a tag in the form of a version is the plugin's version: the operator refuses
/// downgrades, and people read tags.
fn suits_tag(plugin: &Plugin, tag: &str) -> Result<(), Failure> {
    let version = &plugin.info().version;
    match tag.strip_prefix('v').unwrap_or(tag).parse::<semver::Version>() {
        Ok(tagged) if tagged != *version => {
            Err(Failure::usage(format!("the tag says {tag}, the plugin has version {version}")))
        }
        // Tags such as `latest` are no versions, and say nothing that could be wrong.
        _ => Ok(()),
    }
}

/// Returns the time from `SOURCE_DATE_EPOCH`, if it is set. Without it the artifact has no time,
/// so that the same component always makes the same artifact.
fn created() -> Result<Option<String>, Failure> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let time = time.ok_or_else(|| {
        Failure::usage(format!("SOURCE_DATE_EPOCH is {text:?}, expected seconds since 1970"))
    })?;
    Ok(Some(time.to_string()))
}

fn annotations(command: &Push, file: &Path, plugin: Option<&Plugin>) -> BTreeMap<String, String> {
    // `oras pull` writes only layers that have a title, and uses it as the name of the file.
    let title = file.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut annotations: BTreeMap<String, String> =
        title.map(|title| (TITLE.to_owned(), title)).into_iter().collect();
    annotations
        .extend(plugin.map(|plugin| (VERSION.to_owned(), plugin.info().version.to_string())));
    // Last, so that the command line can replace title and version.
    annotations.extend(command.annotations.iter().cloned());
    annotations
}
