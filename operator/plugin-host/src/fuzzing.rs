//! What the fuzzer reaches of this crate beside its public functions: one function for each thing that comes from outside. Each takes
//! any bytes, must not panic, and panics itself where an answer breaks a rule.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::{CosignTrust, Limits, RequiredKeys, TrustEntry, every_form};
use crate::engine::Engine;
use crate::registry::{challenge_is_read, component_layer};
use crate::trust::{self, Attached, Signature};
use crate::{Digest, Reference};

/// The bytes of a manifest. A layer that is taken is within its limit.
pub fn manifest(bytes: &[u8]) {
    const LIMIT: usize = 1 << 20;
    if let Ok(layer) = component_layer(bytes, "the manifest", LIMIT) {
        assert!(layer.size <= LIMIT, "a layer of {} bytes is taken", layer.size);
    }
}

/// The header in which a registry says what it asks for.
pub fn challenge(bytes: &[u8]) {
    challenge_is_read(&String::from_utf8_lossy(bytes));
}

/// A signature in both its forms: a bundle as it is, or a payload and its signature with an empty line between them. Nobody can sign
/// with `key`, so nothing is ever trusted.
pub fn signature(bytes: &[u8], key: &Path) {
    let cosign = CosignTrust { public_key_files: vec![key.to_owned()], forms: every_form(), require: RequiredKeys::Any, keyless: None };
    let entries = [TrustEntry { pattern: "a.b/**".to_owned(), allow_unsigned: false, cosign: Some(cosign) }];
    let reference = Reference::Registry { host: "a.b".to_owned(), repository: "c".to_owned(), tag: Some("1".to_owned()), digest: None };
    let text = String::from_utf8_lossy(bytes);
    let (payload, signature) = text.split_once("\n\n").unwrap_or((&text, ""));
    for signature in [
        Signature::Bundle(text.clone().into_owned()),
        Signature::Simple { payload: STANDARD.encode(payload), signature: STANDARD.encode(signature), attached: Attached::default() },
        Signature::Simple { payload: payload.to_owned(), signature: signature.to_owned(), attached: Attached::default() },
    ] {
        let checked = trust::check(&reference, &Digest::of(b""), &entries, true, std::slice::from_ref(&signature));
        assert!(checked.is_err(), "{signature:?} is trusted");
    }
}

/// The bytes of a component: all the way to one that could be asked. Large ones are left out, as compiling takes its time.
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
