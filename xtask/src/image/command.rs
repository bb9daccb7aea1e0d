//! Command line of `xtask image`: builds a stage of the Dockerfile, for one or more architectures,
//! as an OCI image layout.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{Layout, Stage};

/// Arguments of `xtask image`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Stage of the Dockerfile to write.
    #[arg(long)]
    target: String,
    /// Name and tag of the image.
    #[arg(long)]
    reference: String,
    /// Folder that stage `build` made for an architecture, as ARCHITECTURE=FOLDER; once for each
    /// architecture.
    #[arg(long, required = true, value_parser = pair)]
    build: Vec<(String, String)>,
    /// Value of an ARG of the Dockerfile, as NAME=VALUE.
    #[arg(long, value_parser = pair)]
    build_arg: Vec<(String, String)>,
    /// The Dockerfile.
    #[arg(long, default_value = "Dockerfile")]
    dockerfile: PathBuf,
    /// Time of all files, in seconds since 1970.
    #[arg(long, default_value_t = 0, env = "SOURCE_DATE_EPOCH")]
    time: u64,
    /// An archive where it ends in .tar, else a folder.
    #[arg(long)]
    output: PathBuf,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// Writes the image and prints its digest.
///
/// # Errors
/// As [`Stage::image`] and [`Layout::write_tar`].
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let stages = arguments.build.iter().map(|(architecture, folder)| Stage {
        dockerfile: arguments.dockerfile.clone(),
        target: arguments.target.clone(),
        contexts: BTreeMap::from([("build".to_owned(), folder.into())]),
        arguments: arguments.build_arg.iter().cloned().collect(),
        architecture: architecture.clone(),
    });
    let images = stages.map(|stage| stage.image()).collect::<anyhow::Result<Vec<_>>>()?;
    let mut layout = Layout::new(&arguments.reference, images);
    layout.time = arguments.time;
    let archive = arguments.output.extension().is_some_and(|extension| extension == "tar");
    let digest = if archive {
        layout.write_tar(&arguments.output)
    } else {
        layout.write_folder(&arguments.output)
    };
    println!("{}", digest.with_context(|| arguments.reference.clone())?);
    Ok(())
}
