//! The fuzz targets.

use std::path::PathBuf;
use std::sync::OnceLock;

use flashjob_plugin_host::{DeviceType, Digest, Reference, fuzzing, parse_docker_config_json};
use flashjob_rules::flashjob::grants::Grants;
use flashjob_rules::flashjob::observed::{Endpoint, Identity};

/// A parser of external bytes.
pub struct Target {
    /// Name of the target, and of its corpus.
    pub name: &'static str,
    /// Parses any bytes. Panics if a rule is broken.
    pub run: fn(&[u8]),
    /// Number of mutations of its corpus in the test; slow targets get fewer.
    pub changes: usize,
}

/// All targets.
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

/// Parses the operator's configuration file.
fn configuration(bytes: &[u8]) {
    if let Err(error) = flashjob_config::parse(&String::from_utf8_lossy(bytes)) {
        assert!(!error.to_string().is_empty(), "a refusal says why");
    }
}

/// Checks that a parsed reference, when formatted, parses to the same value.
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

/// Checks that an endpoint written by an author denotes the address that it shows, and that an
/// image that a grant covers is a valid image name.
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

/// Parses the Secret with passwords. No error message may quote it.
fn credentials(bytes: &[u8]) {
    match parse_docker_config_json(bytes, "registry.example") {
        Ok(credentials) => {
            assert!(!credentials.username.is_empty() && !credentials.password.is_empty())
        }
        Err(error) => assert!(!error.to_string().contains("secret-word"), "{error}"),
    }
}

/// Reads an image layout on disk, in a separate folder.
fn layout(bytes: &[u8]) {
    if let Ok(folder) = tempfile::tempdir() {
        fuzzing::layout(bytes, folder.path());
    }
}

const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

/// An authority and logs whose keys no longer sign anything. They signed
/// `corpus/signature/keyless-…`, for another digest.
const TRUSTED_ROOT: &str = include_str!("trusted-root.json");

/// Verifies a signature against a key and an authority that sign nothing.
fn signature(bytes: &[u8]) {
    static FILES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let [key, root] = FILES.get_or_init(|| {
        [("pub", KEY), ("json", TRUSTED_ROOT)].map(|(kind, text)| {
            let file =
                std::env::temp_dir().join(format!("flashjob-fuzz-{}.{kind}", std::process::id()));
            // If the file cannot be written, no signature is trusted, because there is no key.
            let _ = std::fs::write(&file, text);
            file
        })
    });
    fuzzing::signature(bytes, key, root);
}
