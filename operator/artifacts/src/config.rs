//! The parts of configuration files that concern registries and trust.

mod check;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::credentials::canonical_host;

pub use check::{InvalidField, check, check_trust};

/// Connection settings of one registry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryConfig {
    /// Host as in references, with its port where it is not the usual one.
    pub host: String,
    /// The Secret with the password.
    #[serde(default)]
    pub credentials: Option<CredentialsReference>,
    /// Certificates of the authority that signed the registry's, in PEM; those of the system count
    /// no more.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Speak HTTP without TLS. Nothing else makes it so, loopback neither.
    #[serde(default)]
    pub plain_http: bool,
    /// Other hosts that may ask for the password to give out tokens.
    #[serde(default)]
    pub token_hosts: Vec<String>,
    /// Registries that are asked before this one, in this order: `host`, or `host/prefix` where
    /// the repositories are below that path.
    #[serde(default)]
    pub mirrors: Vec<String>,
}

impl RegistryConfig {
    /// Returns true if this is the configuration of the registry at that host; `host:443` is
    /// `host`, and Docker Hub's names are one.
    #[must_use]
    pub fn is_at(&self, host: &str) -> bool {
        canonical_host(&self.host) == canonical_host(host)
    }
}

/// Names a Secret of type `kubernetes.io/dockerconfigjson` in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsReference {
    /// The Secret's name.
    pub secret_name: String,
}

/// Trust policy for components: the signers whose components are run. The longest literal prefix
/// of `match` wins; nothing matching means refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustEntry {
    /// `host/path`, `host/path/*` or `host/path/**`; for an image layout the host is `oci-layout`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Run what nobody signed.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// Demand a cosign signature.
    #[serde(default)]
    pub cosign: Option<CosignTrust>,
}

/// By whom a component must be signed, and how: with keys, or by identities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CosignTrust {
    /// Files with one public key each, in PEM: ECDSA on P-256, Ed25519, or RSA from 2048 bits on.
    /// Read anew at every load.
    #[serde(default)]
    pub public_key_files: Vec<PathBuf>,
    /// Forms in which a signature counts.
    #[serde(default = "every_form")]
    pub forms: Vec<SignatureForm>,
    /// Number of the keys or identities that must have signed: one of them, or each.
    #[serde(default)]
    pub require: RequiredKeys,
    /// Certificates in place of keys. Beside publicKeyFiles it is an error: which of the two is
    /// demanded would not be said.
    #[serde(default)]
    pub keyless: Option<KeylessTrust>,
}

impl CosignTrust {
    /// Files with the keys, or with the trusted root.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let root = self.keyless.as_ref().map(|keyless| &keyless.trusted_root_file);
        self.public_key_files.iter().chain(root)
    }
}

/// Signers that must have signed where nobody keeps a key: cosign makes one for each signature,
/// with a certificate that says whose it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeylessTrust {
    /// File with the authorities and logs that are trusted, in the JSON of a Sigstore trusted
    /// root: what `cosign trusted-root create` writes. Nothing is asked over the network. Read
    /// anew at every load.
    pub trusted_root_file: PathBuf,
    /// Identities whose signatures count.
    pub identities: Vec<SignerIdentity>,
}

/// Issuer and subject that a certificate must name, each as it is or as a pattern from `^` to `$`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignerIdentity {
    /// URL of the OpenID Connect issuer that vouches for the subject.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The same as a regular expression.
    #[serde(default)]
    pub issuer_regexp: Option<String>,
    /// Signer: an e-mail address, or the URI of a workflow.
    #[serde(default)]
    pub subject: Option<String>,
    /// The same as a regular expression.
    #[serde(default)]
    pub subject_regexp: Option<String>,
}

/// Form in which a cosign signature is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SignatureForm {
    /// A Sigstore bundle that refers to the manifest: what cosign 3 writes.
    Bundle,
    /// Simple signing, under the tag `sha256-<digest>.sig`: what cosign wrote before.
    Simple,
}

/// All forms that this version can verify.
#[must_use]
pub fn every_form() -> Vec<SignatureForm> {
    vec![SignatureForm::Bundle, SignatureForm::Simple]
}

/// Number of the keys or identities that must have signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequiredKeys {
    /// One of them.
    #[default]
    Any,
    /// Each of them.
    All,
}
