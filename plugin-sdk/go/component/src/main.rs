//! Build steps that Go's own tools lack for a device plugin: generating the bindings of the plugin
//! contract, and making a component of the module that Go compiled.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, Subcommand};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_component::{ComponentEncoder, StringEncoding};

const WORLD: &str = "plugin";

#[derive(Parser)]
#[command(about = "Go bindings of the plugin contract, and a component from what Go compiled.")]
struct Arguments {
    /// Folder of one version of the contract, as wit/0.1.0.
    #[arg(long)]
    wit: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the bindings.
    Bindings {
        /// Go's name of the package that they become.
        #[arg(long)]
        package: String,
        /// Go's name of the package whose functions the plugin's author writes.
        #[arg(long)]
        exports: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Turns a module that Go compiled (GOOS=wasip1, -buildmode=c-shared) into a component.
    Component {
        /// The module.
        module: PathBuf,
        /// The component.
        component: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (resolve, world) = contract(&arguments.wit)?;
    match arguments.command {
        Command::Bindings { package, exports, folder } => {
            bindings(resolve, world, package, exports, &folder)
        }
        Command::Component { module, component } => {
            let module = std::fs::read(&module)
                .with_context(|| format!("cannot read the module {}", module.display()))?;
            let bytes = componentize(module, &resolve, world)?;
            std::fs::write(&component, bytes)
                .with_context(|| format!("cannot write the component {}", component.display()))
        }
    }
}

fn contract(folder: &Path) -> anyhow::Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(folder)
        .with_context(|| format!("cannot read the contract in {}", folder.display()))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    Ok((resolve, world))
}

fn bindings(
    mut resolve: Resolve,
    world: WorldId,
    package: String,
    exports: String,
    folder: &Path,
) -> anyhow::Result<()> {
    let options = wit_bindgen_go::Opts {
        pkg_name: Some(package),
        export_pkg_name: Some(exports),
        ..Default::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    for (name, bytes) in files.iter() {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        std::fs::write(&path, bytes)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Makes a component of a module that Go compiled. Go targets WASI Preview 1; the adapter
/// translates that to Preview 2, which components import.
fn componentize(
    mut module: Vec<u8>,
    resolve: &Resolve,
    world: WorldId,
) -> anyhow::Result<Vec<u8>> {
    wit_component::embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8)?;
    let mut encoder = ComponentEncoder::default();
    let encoder = encoder.validate(true).module(&module)?;
    encoder
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .encode()
}
