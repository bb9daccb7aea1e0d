//! `plugin new`: a folder with a plugin that builds, tests itself, and needs no checkout of this
//! repository.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use flashjob_plugin_host::DeviceType;
use include_dir::{Dir, include_dir};
use serde_json::json;

use crate::failure::{Code, Failure};
use crate::report::Report;

/// Scaffold of a plugin in Rust. The suffix `.in` is removed from file names, and `{{…}}` in the
/// text is replaced.
static RUST: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/scaffold/rust");
/// Sources of the SDK, on which the plugin depends.
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../plugin-sdk/src");
/// The version of the contract that the SDK is built against.
static CONTRACT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../wit/0.3.0");

/// Start a plugin.
#[derive(Debug, Args)]
pub struct New {
    /// Name of the plugin: lower-case letters, digits and dashes, at most 63.
    name: String,
    /// Language of its source.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    language: Language,
    /// The device type that it serves; default: its name without dashes.
    #[arg(long, value_name = "TYPE")]
    device_type: Option<String>,
    /// The folder, which must not be there; default: the name.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Languages that there is a scaffold for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    /// With the SDK, which comes along.
    Rust,
}

pub(super) fn run(command: &New) -> Result<Report, Failure> {
    check_name(&command.name)?;
    let kind = command.device_type.as_deref().unwrap_or(&command.name);
    let kind: DeviceType =
        kind.parse().map_err(|error| Failure::usage(format!("--device-type: {error}")))?;
    let folder = command.directory.clone().unwrap_or_else(|| PathBuf::from(&command.name));
    let filled = |text: &str| {
        let text =
            text.replace("{{name}}", &command.name).replace("{{device-type}}", kind.as_ref());
        text.replace("{{sdk-version}}", env!("CARGO_PKG_VERSION"))
    };
    let parts = match command.language {
        Language::Rust => {
            [(&RUST, ""), (&SDK, "flashjob/plugin-sdk/src"), (&CONTRACT, "flashjob/wit/0.3.0")]
        }
    };
    let files: Vec<(PathBuf, Vec<u8>)> =
        parts.iter().flat_map(|(from, to)| files(from, Path::new(to), &filled)).collect();
    place(&folder, &files)?;
    let next = [
        "cargo test",
        "kubectl flashjob plugin build",
        &format!("kubectl flashjob plugin run target/{}.wasm", command.name),
    ];
    let text = format!(
        "plugin {} for devices of type {kind} is in {}\n\n  cd {}\n  {}\n",
        command.name,
        folder.display(),
        folder.display(),
        next.join("\n  ")
    );
    let mut names: Vec<String> =
        files.iter().map(|(path, _)| path.display().to_string()).collect();
    names.sort();
    Ok(Report::new(
        text,
        json!({"name": command.name, "deviceType": kind, "directory": folder, "files": names}),
    ))
}

/// Checks that the name is a DNS label, as the operator's configuration requires.
fn check_name(name: &str) -> Result<(), Failure> {
    let inner = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if inner
        && !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && !name.ends_with('-')
    {
        return Ok(());
    }
    let message = format!(
        "{name:?} is not a valid plugin name; expected lower-case letters, digits and dashes \
         inside, at most 63"
    );
    Err(Failure::usage(message))
}

/// Returns all files of a folder, with paths below `to`.
fn files(from: &Dir<'_>, to: &Path, filled: &impl Fn(&str) -> String) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> =
        from.dirs().flat_map(|folder| self::files(folder, to, filled)).collect();
    files.extend(from.files().map(|file| {
        let template = file.path().extension().is_some_and(|extension| extension == "in");
        let path = if template { file.path().with_extension("") } else { file.path().to_owned() };
        // Under its real name it would take effect in this repository too.
        let path = if path == Path::new("gitignore") { PathBuf::from(".gitignore") } else { path };
        let text = file.contents_utf8().filter(|_| template).map(|text| filled(text).into_bytes());
        (to.join(path), text.unwrap_or_else(|| file.contents().to_owned()))
    }));
    files
}

/// Creates the whole folder in one step; fails if the path exists.
fn place(folder: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<(), Failure> {
    let exists = || {
        Failure::new(
            Code::Usage,
            "FileExists",
            format!("{} already exists; name another folder with --directory", folder.display()),
        )
    };
    // `exists` would follow a dangling link, and say that there is nothing.
    if folder.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let unwritable = |error: std::io::Error| Failure::unwritable(folder, &error);
    let parent =
        folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(unwritable)?;
    // Beside the target, so that one rename makes the folder appear with all its files or not at
    // all.
    let draft = tempfile::Builder::new()
        .prefix(".flashjob-new-")
        .tempdir_in(parent)
        .map_err(unwritable)?;
    let whole = draft.path().join("plugin");
    for (path, bytes) in files {
        let path = whole.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(&whole)).map_err(unwritable)?;
        std::fs::write(&path, bytes).map_err(unwritable)?;
    }
    match std::fs::rename(&whole, folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists()),
        renamed => renamed.map_err(unwritable),
    }
}

#[cfg(test)]
mod tests {
    /// Returns the version of wit-bindgen on which a manifest depends.
    fn version(manifest: &str) -> Option<&str> {
        let line = manifest.lines().find(|line| line.starts_with("wit-bindgen = "))?;
        line.split('"').nth(1)
    }

    #[test]
    fn a_new_plugin_is_built_with_the_wit_bindgen_that_is_tested_here() {
        let scaffold = include_str!("../../scaffold/rust/flashjob/plugin-sdk/Cargo.toml.in");
        assert!(version(scaffold).is_some());
        assert_eq!(version(scaffold), version(include_str!("../../../../Cargo.toml")));
    }
}
