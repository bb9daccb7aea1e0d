//! Entry points of this crate for the fuzzer that are not public otherwise, one for each kind of
//! untrusted input. Each accepts any bytes and must not panic, except to report a broken
//! invariant.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flashjob_artifacts::{challenge_is_read, fuzzing, trust};
use tokio::runtime::{Builder, Runtime};

use crate::component::component_layer;
use crate::config::{CosignTrust, KeylessTrust, Limits, SignerIdentity, TrustEntry, every_form};
use crate::engine::Engine;
use crate::{Attached, Digest, Reference, Signature};

/// Reads the bytes as a manifest. An accepted layer is within its limit.
pub fn manifest(bytes: &[u8]) {
    const LIMIT: usize = 1 << 20;
    if let Ok(layer) = component_layer(bytes, "the manifest", LIMIT) {
        assert!(layer.size <= LIMIT, "a layer of {} bytes is taken", layer.size);
    }
}

/// Reads the bytes as the header with a registry's authentication challenge.
pub fn challenge(bytes: &[u8]) {
    let _ = challenge_is_read(&String::from_utf8_lossy(bytes));
}

/// Reads the bytes as a signature in both forms: a bundle as it is, or payload and signature
/// separated by an empty line, followed, after two more empty lines, by a certificate and the
/// log's entry. Nobody can sign with `key`, or for this digest with the authority and logs of
/// `root`, so no signature is ever trusted.
pub fn signature(bytes: &[u8], key: &Path, root: &Path) {
    let any = || Some("^.+$".to_owned());
    let anybody = SignerIdentity {
        issuer_regexp: any(),
        subject_regexp: any(),
        ..SignerIdentity::default()
    };
    let keyless = KeylessTrust { trusted_root_file: root.to_owned(), identities: vec![anybody] };
    let by_key = CosignTrust {
        public_key_files: vec![key.to_owned()],
        forms: every_form(),
        ..CosignTrust::default()
    };
    let by_identity =
        CosignTrust { keyless: Some(keyless), forms: every_form(), ..CosignTrust::default() };
    let reference = Reference::Registry {
        host: "a.b".to_owned(),
        repository: "c".to_owned(),
        tag: Some("1".to_owned()),
        digest: None,
    };
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("\n\n");
    let (payload, signature) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (certificate, bundle) = (parts.next().map(str::to_owned), parts.next().map(str::to_owned));
    let attached =
        Attached { chain: certificate.clone(), certificate, timestamp: bundle.clone(), bundle };
    let without_timestamp = Attached { timestamp: None, ..attached.clone() };
    let simple = |payload: &str, signature: &str, attached: &Attached| Signature::Simple {
        payload: payload.to_owned(),
        signature: signature.to_owned(),
        attached: attached.clone(),
    };
    let signatures = [
        Signature::Bundle(text.clone().into_owned()),
        simple(&STANDARD.encode(payload), &STANDARD.encode(signature), &attached),
        simple(&STANDARD.encode(payload), signature, &without_timestamp),
        simple(payload, signature, &attached),
    ];
    for cosign in [by_key, by_identity] {
        let entries = [TrustEntry {
            pattern: "a.b/**".to_owned(),
            allow_unsigned: false,
            cosign: Some(cosign),
        }];
        let checked = trust::check(&reference, &Digest::of(b""), &entries, true, &signatures);
        assert!(checked.is_err(), "one of {signatures:?} is trusted");
    }
}

/// Reads the bytes as an image layout: as an archive, or as files. Everything read has the
/// expected digest, and folder and archive give equal results. Writes into the folder.
pub fn layout(bytes: &[u8], folder: &Path) {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().build().ok());
    if let Some(runtime) = runtime {
        // Without a writable folder there is nothing to read.
        let _ = runtime.block_on(fuzzing::layout(bytes, folder));
    }
}

/// Reads the bytes as a component, and prepares it until it could be called. Larger inputs are
/// skipped, as compiling them is slow.
pub fn component(bytes: &[u8]) {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new(Limits::default(), PathBuf::new()).ok());
    if let Some(engine) = engine.as_ref().filter(|_| bytes.len() <= 64 << 10) {
        engine.compile_here(bytes);
    }
}

/// Converts an answer of each kind, generated from these bytes.
pub fn answer(bytes: &[u8]) {
    crate::engine::answer(bytes);
}
