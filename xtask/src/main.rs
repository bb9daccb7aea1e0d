//! Program behind those commands of the Makefile that need one:
//! `cargo run -p flashjob-xtask -- help`.

mod generate;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use flashjob_xtask::image;

/// Commands of this repository's Makefile.
#[derive(Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write all files that are made from the code.
    Generate,
    /// Write an image of the Dockerfile as an OCI image layout, without a container engine.
    Image(image::command::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Generate => generate::run(&repository()),
        Command::Image(arguments) => image::command::run(&arguments),
    }
}

/// Root folder of this repository.
fn repository() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_owned()
}
