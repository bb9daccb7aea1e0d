use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use flashjob_xtask::image::{Copy, Image, Layout};
use tar::EntryType;

use crate::archive;

/// Writes a folder with a program, a file and a link; the caller chooses times, modes and the
/// order of creation.
fn write_folder(root: &Path, reversed: bool, mode: u32) {
    let mut names = ["etc/b", "etc/a", "bin/program"];
    if reversed {
        names.reverse();
    }
    for name in names {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        let program = if name.starts_with("bin") { 0o100 } else { 0 };
        fs::set_permissions(&path, Permissions::from_mode(mode | program)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(mode));
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    symlink("a", root.join("etc/link")).unwrap();
}

fn image(root: &Path) -> Image {
    Image {
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        entrypoint: vec!["/bin/program".to_owned()],
        labels: ["a", "b", "c", "d"].map(|name| (name.to_owned(), "1".to_owned())).into(),
        ..Image::of_folder(root)
    }
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for (name, reversed, mode) in [("one", false, 0o600), ("other", true, 0o664)] {
        let root = folder.path().join(name);
        write_folder(&root, reversed, mode);
        let archive = folder.path().join(format!("{name}.tar"));
        let digest = Layout::new("localhost/image:1", [image(&root)]).write_tar(&archive).unwrap();
        written.push((digest, fs::read(archive).unwrap()));
    }
    assert!(written[0] == written[1], "{} and {}", written[0].0, written[1].0);
}

#[test]
fn an_archive_holds_files_settings_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    write_folder(&root, false, 0o640);
    let archive = folder.path().join("image.tar");
    let mut layout = Layout::new("image", [image(&root)]);
    layout.time = 1_700_000_000;
    let digest = layout.write_tar(&archive).unwrap();

    let read = archive::Layout::open(&archive);
    let manifest = &read.index()["manifests"][0];
    assert_eq!(manifest["digest"], digest.as_str());
    assert_eq!(manifest["annotations"]["org.opencontainers.image.ref.name"], "latest");
    assert_eq!(
        manifest["annotations"]["io.containerd.image.name"],
        "docker.io/library/image:latest"
    );
    let configuration = read.configuration();
    assert_eq!(configuration["created"], "2023-11-14T22:13:20Z");
    assert_eq!(configuration["config"]["Entrypoint"][0], "/bin/program");
    assert_eq!(configuration["config"]["Env"][0], "PATH=/bin");
    assert!(configuration["config"].get("User").is_none());

    let entries = read.entries();
    let names: Vec<_> = entries.keys().map(|path| path.display().to_string()).collect();
    assert_eq!(names, ["bin", "bin/program", "etc", "etc/a", "etc/b", "etc/link"]);
    assert!(entries.values().all(|entry| entry.owner == (0, 0)));
    let modes: Vec<_> = entries.values().map(|entry| entry.mode).collect();
    assert_eq!(modes, [0o755, 0o755, 0o755, 0o644, 0o644, 0o777]);
    let link = &entries[Path::new("etc/link")];
    assert_eq!((link.kind, link.content.as_str()), (EntryType::Symlink, "a"));
}

#[test]
fn later_copies_replace_files_and_add_folders() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    write_folder(&root, false, 0o644);
    fs::write(folder.path().join("a"), "longer than before").unwrap();
    let mut image = image(&root);
    let source = folder.path().join("a");
    for destination in ["/etc/a", "/deep/er/", "/deep/named"] {
        let destination = destination.to_owned();
        image.copies.push(Copy { source: source.clone(), destination });
    }
    let archive = folder.path().join("image.tar");
    Layout::new("image", [image.clone()]).write_tar(&archive).unwrap();
    let entries = archive::Layout::open(&archive).entries();
    for path in ["etc/a", "deep/er/a", "deep/named"] {
        assert_eq!(entries[Path::new(path)].size, 18, "{path}");
    }
    assert_eq!(entries[Path::new("deep")].kind, EntryType::Directory);

    image.copies.push(Copy { source, destination: "/etc".to_owned() });
    let error = Layout::new("image", [image]).write_tar(&archive).unwrap_err();
    assert_eq!(error.to_string(), "/etc: copied both as a file and as a folder");
}

#[test]
fn images_of_several_architectures_share_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    write_folder(&root, false, 0o644);
    let of = |architecture: &str| Image { architecture: architecture.to_owned(), ..image(&root) };
    let archive = folder.path().join("image.tar");
    let layout = Layout::new("image:2", [of("amd64"), of("arm64")]);
    let digest = layout.write_tar(&archive).unwrap();

    let read = archive::Layout::open(&archive);
    let top = &read.index()["manifests"][0];
    assert_eq!(top["digest"], digest.as_str());
    let index = read.json(top);
    for (position, architecture) in ["amd64", "arm64"].iter().enumerate() {
        let manifest = &index["manifests"][position];
        assert_eq!(manifest["platform"]["architecture"], *architecture);
        let configuration = read.json(&read.json(manifest)["config"]);
        assert_eq!(configuration["architecture"], *architecture);
    }
    let twice = Layout::new("image", [of("amd64"), of("amd64")]).write_tar(&archive);
    assert!(twice.unwrap_err().to_string().contains("two images for the same architecture"));
}

#[test]
fn a_folder_replaces_a_layout_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    write_folder(&root, false, 0o644);
    let output = folder.path().join("layout");
    let layout = Layout::new("image", [image(&root)]);
    layout.write_folder(&output).unwrap();
    fs::write(output.join("blobs/sha256/old"), "").unwrap();
    layout.write_folder(&output).unwrap();
    assert!(!output.join("blobs/sha256/old").exists());
    assert!(output.join("index.json").is_file());
    let error = layout.write_folder(&root).unwrap_err();
    assert!(
        error.to_string().contains("contains something other than an image layout"),
        "{error}"
    );
}

#[test]
fn a_device_or_socket_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let archive = folder.path().with_extension("tar");
    let error = Layout::new("image", [Image::of_folder(folder.path())]).write_tar(&archive);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("pipe: is neither a file, a folder nor a symbolic link"), "{text}");
}
