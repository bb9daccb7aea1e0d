//! Packs the single layer of an image: a compressed archive of all copied files. Reads files.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::Copy;

/// Layer as stored, and the digest of its uncompressed archive.
pub struct Layer {
    pub compressed: Vec<u8>,
    pub diff_id: String,
}

/// An entry of the archive.
enum Entry {
    Folder,
    File { source: PathBuf, program: bool },
    Link { target: PathBuf },
}

/// Entries by their path in the image, without the leading slash.
type Entries = BTreeMap<PathBuf, Entry>;

/// Packs the copies, with one timestamp for all entries (seconds since 1970).
pub fn pack(copies: &[Copy], time: u64) -> anyhow::Result<Layer> {
    let mut entries = Entries::new();
    for copy in copies {
        add_copy(&mut entries, copy)?;
    }
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut archive = Builder::new(Hashed { inner: gzip, digest: Sha256::new() });
    for (path, entry) in &entries {
        append(&mut archive, path, entry, time)
            .with_context(|| format!("/{}: cannot be packed", path.display()))?;
    }
    let Hashed { inner, digest } = archive.into_inner()?;
    Ok(Layer {
        compressed: inner.finish()?,
        diff_id: format!("sha256:{}", hex(&digest.finalize())),
    })
}

/// Formats bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn add_copy(entries: &mut Entries, copy: &Copy) -> anyhow::Result<()> {
    let location = copy.source.display();
    let metadata = fs::metadata(&copy.source)
        .with_context(|| format!("{location}: cannot be copied into the image"))?;
    let destination = relative(&copy.destination)?;
    if metadata.is_dir() {
        add_folder(entries, &copy.source, &destination)
    } else if copy.destination.ends_with('/') {
        let name = copy.source.file_name().with_context(|| format!("{location}: has no name"))?;
        add(entries, &copy.source, &metadata, &destination.join(name))
    } else {
        add(entries, &copy.source, &metadata, &destination)
    }
}

/// Returns an absolute path of the image without its leading slash.
fn relative(destination: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(destination);
    ensure!(
        path.is_absolute(),
        "{destination}: the destination of a copy must be an absolute path"
    );
    let mut components = path.components().skip(1);
    ensure!(
        components.all(|component| matches!(component, Component::Normal(_))),
        "{destination}: the destination of a copy must not contain '..'"
    );
    Ok(path.components().skip(1).collect())
}

fn add_folder(entries: &mut Entries, source: &Path, destination: &Path) -> anyhow::Result<()> {
    insert(entries, destination, Entry::Folder)?;
    let location = source.display();
    for item in fs::read_dir(source).with_context(|| format!("{location}: cannot be listed"))? {
        let item = item.with_context(|| format!("{location}: cannot be listed"))?;
        let (path, inner) = (item.path(), destination.join(item.file_name()));
        let metadata =
            item.metadata().with_context(|| format!("{}: cannot be read", path.display()))?;
        if metadata.is_dir() {
            add_folder(entries, &path, &inner)?;
        } else {
            add(entries, &path, &metadata, &inner)?;
        }
    }
    Ok(())
}

fn add(
    entries: &mut Entries,
    source: &Path,
    metadata: &Metadata,
    destination: &Path,
) -> anyhow::Result<()> {
    let location = source.display();
    let entry = if metadata.is_symlink() {
        let target =
            fs::read_link(source).with_context(|| format!("{location}: cannot be read"))?;
        Entry::Link { target }
    } else if metadata.is_file() {
        let program = metadata.permissions().mode() & 0o111 != 0;
        Entry::File { source: source.to_owned(), program }
    } else {
        bail!(
            "{location}: is neither a file, a folder nor a symbolic link; an image can contain \
             nothing else"
        );
    };
    insert(entries, destination, entry)
}

/// Adds an entry and its parent folders. Files and folders do not replace each other.
fn insert(entries: &mut Entries, path: &Path, entry: Entry) -> anyhow::Result<()> {
    let above = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
    for folder in above {
        let stored = entries.entry(folder.to_owned()).or_insert(Entry::Folder);
        let location = folder.display();
        ensure!(
            matches!(stored, Entry::Folder),
            "/{location}: copied both as a file and as a folder"
        );
    }
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let folder = matches!(entry, Entry::Folder);
    let location = path.display();
    if let Some(stored) = entries.insert(path.to_owned(), entry) {
        let same = matches!(stored, Entry::Folder) == folder;
        ensure!(same, "/{location}: copied both as a file and as a folder");
    }
    Ok(())
}

fn append<W: io::Write>(
    archive: &mut Builder<W>,
    path: &Path,
    entry: &Entry,
    time: u64,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match entry {
        Entry::Folder => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            archive.append_data(&mut header, path.join(""), io::empty())
        }
        Entry::Link { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, target)
        }
        Entry::File { source, program } => {
            let file = File::open(source)?;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if *program { 0o755 } else { 0o644 });
            header.set_size(file.metadata()?.len());
            archive.append_data(&mut header, path, file)
        }
    }
}

/// Writer that computes the digest of the data that passes through it.
struct Hashed<W> {
    inner: W,
    digest: Sha256,
}

impl<W: io::Write> io::Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
