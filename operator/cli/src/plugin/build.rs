//! `plugin build`: builds a component with cargo, and checks the result as the operator does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Args;
use flashjob_plugin_host::Reference;
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::inspect;
use crate::failure::{Code, Failure};
use crate::report::{Report, Rows};
use crate::source::{ComponentSource, RegistryOptions, TrustOptions};
use crate::written::{Existing, write};

// Not wasm32-wasip2: there the standard library itself imports WASI, and the contract needs no
// import but the log.
const TARGET: &str = "wasm32-unknown-unknown";
/// Environment variable that names the linker of that target to cargo.
const LINKER: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER";
const FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";

/// Build a plugin.
#[derive(Debug, Args)]
pub struct Build {
    /// The plugin's folder.
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Where the component goes; default: target/<name>.wasm.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// The package, where the folder has several.
    #[arg(short, long)]
    package: Option<String>,
    /// The profile of cargo.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Insist on Cargo.lock, as for a build that others repeat.
    #[arg(long)]
    locked: bool,
}

pub(super) async fn run(command: &Build) -> Result<Report, Failure> {
    let folder = command
        .directory
        .canonicalize()
        .map_err(|error| Failure::unreadable(&command.directory, &error))?;
    if !folder.join("Cargo.toml").is_file() {
        let message = format!(
            "{} has no Cargo.toml; name a plugin's folder, or start one with plugin new",
            command.directory.display()
        );
        return Err(Failure::usage(message));
    }
    let toolchain = Toolchain::find().await?;
    let built = toolchain.build(command, &folder).await?;
    let bytes = std::fs::read(&built).map_err(|error| Failure::unreadable(&built, &error))?;
    let reference = Reference::File { path: built.clone(), digest: None };
    let source =
        ComponentSource::of(reference, &RegistryOptions::default(), &TrustOptions::default())
            .await?;
    let verified = source.verify().await?;
    let plugin = source.start(&verified).await?;
    let info = plugin.info();
    // The target folder is three levels above: <target folder>/<target>/<profile>/<file>.
    let beside = built.ancestors().nth(3).unwrap_or(&folder).join(format!("{}.wasm", info.name));
    let file = command.to.clone().unwrap_or(beside);
    write(&file, &bytes, Existing::Replace)?;
    let file = file
        .strip_prefix(&folder)
        .ok()
        .filter(|_| command.directory == Path::new("."))
        .unwrap_or(&file);
    let mut rows = Rows::default();
    rows.row("name", &info.name).row("version", &info.version);
    rows.row("file", file.display())
        .row("size", inspect::size(bytes.len()))
        .row("digest", verified.digest());
    let json = json!({
        "name": info.name, "version": info.version, "file": file, "size": bytes.len(),
        "digest": verified.digest(),
    });
    Ok(Report::new(rows.to_string(), json))
}

/// Tools that build components from Rust.
struct Toolchain {
    linker: OsString,
    path: OsString,
}

fn missing(what: &str, how: &str) -> Failure {
    Failure::new(Code::Build, "ToolMissing", format!("{what} is missing: {how}"))
}

impl Toolchain {
    /// Finds the tools; the failure says what is missing, and how to install it.
    async fn find() -> Result<Self, Failure> {
        let rust = "install Rust 1.95 or newer with rustup (https://rustup.rs)";
        ask("cargo", &["--version"]).await.ok_or_else(|| missing("cargo", rust))?;
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let sysroot =
            ask(&compiler, &["--print", "sysroot"]).await.ok_or_else(|| missing("rustc", rust))?;
        let sysroot = Path::new(sysroot.trim());
        // If the standard library is built too, no installed target is needed.
        if !sysroot.join("lib/rustlib").join(TARGET).is_dir()
            && std::env::var_os("CARGO_UNSTABLE_BUILD_STD").is_none()
        {
            return Err(missing(
                &format!("the Rust target {TARGET}"),
                &format!("rustup target add {TARGET}"),
            ));
        }
        let version = ask(&compiler, &["-vV"]).await.ok_or_else(|| missing("rustc", rust))?;
        let host =
            version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let tools = sysroot.join("lib/rustlib").join(host).join("bin");
        // The usual linker of this target writes a core module; wasm-component-ld makes a
        // component of it.
        let linker = std::env::var_os(LINKER)
            .or_else(|| Some(tools.join("wasm-component-ld").into_os_string()));
        let linker = linker.filter(|linker| Path::new(linker).is_file());
        let linker = linker.ok_or_else(|| {
            missing(
                "wasm-component-ld",
                &format!("it comes with Rust from rustup; or set {LINKER} to its path"),
            )
        })?;
        // wasm-component-ld starts `wasm-ld`, which rustup installs in these folders and not on
        // the PATH.
        let before = std::env::var_os("PATH").unwrap_or_default();
        let folders =
            [tools.join("gcc-ld"), tools].into_iter().chain(std::env::split_paths(&before));
        let path = std::env::join_paths(folders)
            .map_err(|error| Failure::new(Code::Build, "ToolMissing", format!("PATH: {error}")))?;
        Ok(Self { linker, path })
    }

    /// Builds the component, and returns its path as cargo reports it.
    async fn build(&self, command: &Build, folder: &Path) -> Result<PathBuf, Failure> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(folder).args([
            "build",
            "--lib",
            "--target",
            TARGET,
            "--profile",
            &command.profile,
        ]);
        // The path of the artifact depends on the target folder, which cargo's configuration can
        // move; its JSON says where it is. Diagnostics stay on standard error.
        cargo.arg("--message-format=json-render-diagnostics");
        cargo
            .args(command.locked.then_some("--locked"))
            .args(command.package.iter().flat_map(|package| ["--package", package]));
        cargo
            .env(LINKER, &self.linker)
            .env("PATH", &self.path)
            .env(FLAGS, flags(folder))
            .env_remove("CARGO_BUILD_TARGET");
        // A signal drops this future; without `kill_on_drop` cargo would continue to build.
        cargo
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let failed = |message: String| Failure::new(Code::Build, "BuildFailed", message);
        let output =
            cargo.output().await.map_err(|error| failed(format!("cannot run cargo: {error}")))?;
        if !output.status.success() {
            return Err(failed(format!(
                "cargo could not build {}; see its messages above",
                command.directory.display()
            )));
        }
        let mut components = components(&String::from_utf8_lossy(&output.stdout));
        components.dedup();
        match components.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(failed(format!(
                "{} has no library of crate-type cdylib; add [lib] crate-type = [\"cdylib\"]",
                command.directory.display()
            ))),
            [first, second, ..] => Err(failed(format!(
                "there are several components, {} and {}; name one with --package",
                first.display(),
                second.display()
            ))),
        }
    }
}

/// Runs a program and returns its output; none if the program is missing or fails.
async fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns compiler flags that keep paths of this machine out of the component, so that it is the
/// same wherever it is built.
fn flags(folder: &Path) -> OsString {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    // Cargo ignores RUSTFLAGS if CARGO_ENCODED_RUSTFLAGS is set, so the user's flags are carried
    // over.
    let mut flags: Vec<String> = match (std::env::var(FLAGS), std::env::var("RUSTFLAGS")) {
        (Ok(flags), _) => flags.split('\x1f').map(str::to_owned).collect(),
        (_, Ok(flags)) => flags.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    flags.retain(|flag| !flag.is_empty());
    flags.push(format!("--remap-path-prefix={}=/src", folder.display()));
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    // The separator of CARGO_ENCODED_RUSTFLAGS: a path with spaces stays within one flag.
    flags.join("\x1f").into()
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
struct Target {
    #[serde(default)]
    crate_types: Vec<String>,
}

fn components(messages: &str) -> Vec<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let libraries = messages.filter(|message| {
        message.reason == "compiler-artifact"
            && message.target.crate_types.iter().any(|kind| kind == "cdylib")
    });
    libraries
        .flat_map(|message| message.filenames)
        .filter(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .collect()
}
