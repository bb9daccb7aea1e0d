//! Sections of configuration files that configure registries and trust.

mod check;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::credentials::canonical_host;

pub use check::{InvalidField, check, check_trust};

/// Connection settings of one registry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryConfig {
    /// Host as in references, with its port if that is not the default.
    pub host: String,
    /// The Secret with the password.
    #[serde(default)]
    pub credentials: Option<CredentialsReference>,
    /// Certificates of the authority that signed the registry's certificate, or that certificate
    /// itself, in PEM. They replace the system's certificates.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Use HTTP without TLS. The default is TLS for every host, including loopback.
    #[serde(default)]
    pub plain_http: bool,
    /// Other hosts that may receive the password in exchange for tokens.
    #[serde(default)]
    pub token_hosts: Vec<String>,
    /// Mirrors, which are tried before this registry, in this order: `host`, or `host/prefix` if
    /// the repositories are below that path.
    #[serde(default)]
    pub mirrors: Vec<String>,
}

impl RegistryConfig {
    /// Returns true if this is the configuration of the registry at that host. `host:443` equals
    /// `host`, and all of Docker Hub's names are equal.
    #[must_use]
    pub fn is_at(&self, host: &str) -> bool {
        canonical_host(&self.host) == canonical_host(host)
    }
}

/// Reference to a Secret of type `kubernetes.io/dockerconfigjson` in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsReference {
    /// The Secret's name.
    pub secret_name: String,
}

/// Entry of a trust policy: the signers whose artifacts may be used. If several entries match, the
/// one with the longest literal prefix of `match` wins; without a match, the artifact is refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustEntry {
    /// `host/path`, `host/path/*` or `host/path/**`; for an image layout the host is `oci-layout`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Allow artifacts without a signature.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// Require a cosign signature.
    #[serde(default)]
    pub cosign: Option<CosignTrust>,
}

/// Required cosign signers: keys or identities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CosignTrust {
    /// Files with one public key each, in PEM: ECDSA on P-256, Ed25519, or RSA with at least 2048
    /// bits. Read again at every load.
    #[serde(default)]
    pub public_key_files: Vec<PathBuf>,
    /// Accepted forms of signatures.
    #[serde(default = "every_form")]
    pub forms: Vec<SignatureForm>,
    /// Number of the keys or identities that must have signed: any one, or all.
    #[serde(default)]
    pub require: RequiredKeys,
    /// Certificates instead of keys. It is an error together with publicKeyFiles, because it would
    /// be ambiguous which of the two is required.
    #[serde(default)]
    pub keyless: Option<KeylessTrust>,
}

impl CosignTrust {
    /// Returns the files with the keys, and the trusted root.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let root = self.keyless.as_ref().map(|keyless| &keyless.trusted_root_file);
        self.public_key_files.iter().chain(root)
    }
}

/// Required signers of keyless signatures: cosign generates a key for each signature, with a
/// certificate that names the signer's identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeylessTrust {
    /// File with the trusted authorities and logs, as a Sigstore trusted root in JSON, such as
    /// `cosign trusted-root create` writes. Nothing is fetched over the network. Read again at
    /// every load.
    pub trusted_root_file: PathBuf,
    /// Identities whose signatures are accepted.
    pub identities: Vec<SignerIdentity>,
}

/// Issuer and subject that a certificate must name, each as exact text or as a pattern from `^` to
/// `$`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignerIdentity {
    /// URL of the OpenID Connect issuer that vouches for the subject.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Issuer as a regular expression.
    #[serde(default)]
    pub issuer_regexp: Option<String>,
    /// Subject, the signer: an e-mail address, or the URI of a workflow.
    #[serde(default)]
    pub subject: Option<String>,
    /// Subject as a regular expression.
    #[serde(default)]
    pub subject_regexp: Option<String>,
}

/// Form in which a cosign signature is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SignatureForm {
    /// A Sigstore bundle that refers to the manifest, as cosign 3 writes it.
    Bundle,
    /// Simple signing, under the tag `sha256-<digest>.sig`, as earlier versions of cosign write
    /// it.
    Simple,
}

/// Returns all forms that this version can verify.
#[must_use]
pub fn every_form() -> Vec<SignatureForm> {
    vec![SignatureForm::Bundle, SignatureForm::Simple]
}

/// Number of the keys or identities that must have signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequiredKeys {
    /// Any one of them.
    #[default]
    Any,
    /// All of them.
    All,
}
