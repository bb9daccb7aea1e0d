//! `plugin pull`: fetches a component from a registry into a file.

use std::path::PathBuf;

use clap::Args;
use flashjob_plugin_host::Reference;
use serde_json::json;

use super::inspect;
use crate::failure::Failure;
use crate::report::{Report, Rows};
use crate::source::{ComponentSource, RegistryOptions, TrustOptions, reference};
use crate::written::{Existing, write};

/// Fetch a component.
#[derive(Debug, Args)]
pub struct Pull {
    /// host/repository:tag, or @sha256:…
    reference: String,
    /// Where to; default: the last part of the repository, with .wasm.
    file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    trust: TrustOptions,
}

pub(super) async fn run(command: &Pull) -> Result<Report, Failure> {
    let reference = reference(&command.reference)?;
    let Reference::Registry { repository, .. } = &reference else {
        return Err(Failure::usage(format!(
            "{} is a local file; name a reference",
            command.reference
        )));
    };
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let file = command.file.clone().unwrap_or_else(|| PathBuf::from(format!("{last}.wasm")));
    let source = ComponentSource::of(reference, &command.registry, &command.trust).await?;
    // Before anything is written: a file that is left behind would be taken for a trusted one.
    let verified = source.verify().await?;
    let existing = if command.force { Existing::Replace } else { Existing::Keep };
    write(&file, verified.content(), existing)?;
    let mut rows = Rows::default();
    rows.row("file", file.display()).row("size", inspect::size(verified.content().len()));
    rows.row("from", source.reference())
        .row("digest", verified.digest())
        .row("trust", inspect::trust(&source, &verified));
    Ok(Report::new(rows.to_string(), json!({"file": file, "source": source.json(&verified)})))
}
