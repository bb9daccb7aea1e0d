//! Functions of this crate that the fuzzer reaches beside the public ones: one for each thing that
//! comes from outside. Each takes any bytes, must not panic, and panics itself where an answer
//! breaks a rule.

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

/// The bytes of a manifest. A layer that is taken is within its limit.
pub fn manifest(bytes: &[u8]) {
    const LIMIT: usize = 1 << 20;
    if let Ok(layer) = component_layer(bytes, "the manifest", LIMIT) {
        assert!(layer.size <= LIMIT, "a layer of {} bytes is taken", layer.size);
    }
}

/// The header in which a registry says what it asks for.
pub fn challenge(bytes: &[u8]) {
    let _ = challenge_is_read(&String::from_utf8_lossy(bytes));
}

/// A signature in both its forms: a bundle as it is, or a payload and its signature with an empty
/// line between them, and after two more a certificate and the log's entry. Nobody can sign with
/// `key` nor, for this digest, with the authority and logs of `root`, so nothing is ever trusted.
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

/// An image layout: the bytes of its archive, or its files. Nothing comes of it whose digest is
/// another, and folder and archive say the same. The folder is written into.
pub fn layout(bytes: &[u8], folder: &Path) {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().build().ok());
    if let Some(runtime) = runtime {
        // Where nothing can be written there is nothing to read.
        let _ = runtime.block_on(fuzzing::layout(bytes, folder));
    }
}

/// The bytes of a component: all the way to one that could be asked. Large ones are left out, as
/// compiling takes its time.
pub fn component(bytes: &[u8]) {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new(Limits::default(), PathBuf::new()).ok());
    if let Some(engine) = engine.as_ref().filter(|_| bytes.len() <= 64 << 10) {
        engine.compile_here(bytes);
    }
}

/// An answer of a plugin, of any kind, made of these bytes.
pub fn answer(bytes: &[u8]) {
    crate::engine::answer(bytes);
}
