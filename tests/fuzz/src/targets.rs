//! The targets.

use std::path::PathBuf;
use std::sync::OnceLock;

use flashjob_plugin_host::{DeviceType, Digest, Reference, fuzzing, parse_docker_config_json};
use flashjob_rules::flashjob::grants::Grants;
use flashjob_rules::flashjob::observed::{Endpoint, Identity};

/// Something that takes bytes from outside.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes. It panics where a rule is broken.
    pub run: fn(&[u8]),
    /// Number of changes of its corpus that the test gives it: those that take long get fewer.
    pub changes: usize,
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "configuration", run: configuration, changes: 2000 },
    Target { name: "reference", run: reference, changes: 20_000 },
    Target { name: "endpoint", run: endpoint, changes: 20_000 },
    Target { name: "credentials", run: credentials, changes: 5000 },
    Target { name: "challenge", run: fuzzing::challenge, changes: 20_000 },
    Target { name: "manifest", run: fuzzing::manifest, changes: 10_000 },
    Target { name: "layout", run: layout, changes: 400 },
    Target { name: "signature", run: signature, changes: 2000 },
    Target { name: "component", run: fuzzing::component, changes: 400 },
    Target { name: "answer", run: fuzzing::answer, changes: 20_000 },
];

/// The operator's configuration file.
fn configuration(bytes: &[u8]) {
    if let Err(error) = flashjob_config::parse(&String::from_utf8_lossy(bytes)) {
        assert!(!error.to_string().is_empty(), "a refusal says why");
    }
}

/// Checks that what is read is written as it can be read again.
fn reference(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(reference) = text.parse::<Reference>() {
        let again = reference.to_string().parse::<Reference>();
        assert_eq!(again.as_ref(), Ok(&reference), "{text:?}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.hex().len(), 64, "{text:?}");
    }
    if let Ok(kind) = text.parse::<DeviceType>() {
        assert_eq!(kind.to_string().parse::<DeviceType>().as_ref(), Ok(&kind), "{text:?}");
    }
}

/// Checks that what an author writes as an endpoint leads where it reads, and that an image that a
/// grant covers is an image.
fn endpoint(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(endpoint) = Endpoint::read(&text) {
        let again = Endpoint::read(&endpoint.to_string());
        assert_eq!(again, Some(endpoint), "{text:?}");
    }
    if let Ok(endpoint) = Endpoint::overriding(&text, None, &[]) {
        assert!(endpoint.address().is_some() && !text.contains('@'), "{text:?}");
        assert_eq!(
            Identity::endpoint(&text),
            Identity::endpoint(&endpoint.to_string()),
            "{text:?}"
        );
    }
    let grants =
        Grants { images: vec!["registry.example/own/**".to_owned()], ..Grants::default() };
    if grants.cover(&text) {
        assert!(!text.contains("..") && !text.contains('%'), "{text:?}");
    }
}

/// The Secret with passwords. Nothing of it is quoted where it is refused.
fn credentials(bytes: &[u8]) {
    match parse_docker_config_json(bytes, "registry.example") {
        Ok(credentials) => {
            assert!(!credentials.username.is_empty() && !credentials.password.is_empty())
        }
        Err(error) => assert!(!error.to_string().contains("secret-word"), "{error}"),
    }
}

/// A layout on disk, in a folder of its own.
fn layout(bytes: &[u8]) {
    if let Ok(folder) = tempfile::tempdir() {
        fuzzing::layout(bytes, folder.path());
    }
}

const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

/// An authority and logs in whose names nobody signs any more. They did for
/// `corpus/signature/keyless-…`, for another digest.
const TRUSTED_ROOT: &str = include_str!("trusted-root.json");

/// A signature, and a key and an authority in whose names nobody signs.
fn signature(bytes: &[u8]) {
    static FILES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let [key, root] = FILES.get_or_init(|| {
        [("pub", KEY), ("json", TRUSTED_ROOT)].map(|(kind, text)| {
            let file =
                std::env::temp_dir().join(format!("flashjob-fuzz-{}.{kind}", std::process::id()));
            // Where it cannot be written, no signature is trusted for want of a key.
            let _ = std::fs::write(&file, text);
            file
        })
    });
    fuzzing::signature(bytes, key, root);
}
