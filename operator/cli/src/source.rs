//! Source of a component (a file or a registry): connection to registries, required signatures and
//! resource limits.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use flashjob_config::OperatorConfig;
use flashjob_plugin_host::config::{
    CosignTrust, KeylessTrust, PullPolicy, RegistryConfig, RequiredKeys, SignatureForm,
    SignerIdentity, TrustEntry,
};
use flashjob_plugin_host::{
    Digest, Host, HostSettings, Logins, Plugin, PluginSource, Published, Reference, Verified,
    places, trust_entry,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cause::root;
use crate::docker_config;
use crate::failure::{Code, Failure};

/// Connection to registries. Passwords come from Docker's configuration (`DOCKER_CONFIG`, else
/// `~/.docker/config.json`).
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryOptions {
    /// The operator's configuration: its registries, limits, trust and grants hold here too.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Certificates of the authority of this registry, in PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "plain_http")]
    pub ca_file: Option<PathBuf>,
    /// Speak to this registry without TLS.
    #[arg(long)]
    pub plain_http: bool,
}

/// Whose signatures are demanded.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Trust")]
#[command(
    group = ArgGroup::new("subject")
        .args(["certificate_identity", "certificate_identity_regexp"])
        .requires("trusted_root")
)]
#[command(
    group = ArgGroup::new("issuer")
        .args(["certificate_oidc_issuer", "certificate_oidc_issuer_regexp"])
        .requires("trusted_root")
)]
pub struct TrustOptions {
    /// A public key in PEM: demand a cosign signature made with it, whatever the configuration's
    /// trust says. Several: one of them.
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Demand a signature of each key.
    #[arg(long, requires = "keys")]
    pub all_keys: bool,
    /// Authorities and logs in JSON, as `cosign trusted-root create` writes them: demand a
    /// signature without a key, whatever the configuration's trust says.
    #[arg(
        long,
        value_name = "FILE",
        requires_all = ["subject", "issuer"],
        conflicts_with = "keys"
    )]
    pub trusted_root: Option<PathBuf>,
    /// Whose signature: an e-mail address, or the URI of a workflow.
    #[arg(long, value_name = "SUBJECT")]
    pub certificate_identity: Option<String>,
    /// The same as a regular expression, from ^ to $.
    #[arg(long, value_name = "PATTERN")]
    pub certificate_identity_regexp: Option<String>,
    /// Issuer of that identity: the URL of an OpenID Connect issuer.
    #[arg(long, value_name = "URL")]
    pub certificate_oidc_issuer: Option<String>,
    /// The same as a regular expression, from ^ to $.
    #[arg(long, value_name = "PATTERN")]
    pub certificate_oidc_issuer_regexp: Option<String>,
}

impl TrustOptions {
    /// Returns the trust that the command line demands; none if it demands no signature.
    pub fn demanded(&self) -> Option<CosignTrust> {
        // cosign 3 makes bundles, older versions the simple-signing form; the option names a key,
        // not the version of the signer's program.
        let forms = vec![SignatureForm::Bundle, SignatureForm::Simple];
        let require = if self.all_keys { RequiredKeys::All } else { RequiredKeys::Any };
        let keyless = self.trusted_root.clone().map(|trusted_root_file| {
            let identity = SignerIdentity {
                issuer: self.certificate_oidc_issuer.clone(),
                issuer_regexp: self.certificate_oidc_issuer_regexp.clone(),
                subject: self.certificate_identity.clone(),
                subject_regexp: self.certificate_identity_regexp.clone(),
            };
            KeylessTrust { trusted_root_file, identities: vec![identity] }
        });
        let cosign = CosignTrust { public_key_files: self.keys.clone(), forms, require, keyless };
        (!cosign.public_key_files.is_empty() || cosign.keyless.is_some()).then_some(cosign)
    }
}

/// A component named on the command line, with everything needed to fetch and verify it.
pub struct ComponentSource {
    /// Plugin host, which fetches, verifies and compiles the component.
    pub host: Host,
    /// The operator's configuration; the default one if `--config` is not given.
    pub config: OperatorConfig,
    /// True if the configuration or the command line says whose signatures are required.
    trust_configured: bool,
    trust: Vec<TrustEntry>,
    plugin: PluginSource,
    logins: Logins,
    /// Deleted when this value is dropped: nothing is cached between runs.
    _cache: TempDir,
}

impl ComponentSource {
    /// Creates the source from a file name or reference given on the command line.
    ///
    /// # Errors
    /// The argument is neither a file nor a reference, the configuration is invalid, or
    /// credentials are missing or cannot be used.
    pub async fn new(
        named: &str,
        registry: &RegistryOptions,
        trust: &TrustOptions,
    ) -> Result<Self, Failure> {
        Self::of(reference(named)?, registry, trust).await
    }

    /// Creates the source of a reference.
    ///
    /// # Errors
    /// The configuration is invalid, or credentials are missing or cannot be used.
    pub async fn of(
        reference: Reference,
        registry: &RegistryOptions,
        trust: &TrustOptions,
    ) -> Result<Self, Failure> {
        let config = registry
            .config
            .as_deref()
            .map_or_else(|| Ok(OperatorConfig::default()), read_config)?;
        let trust_configured = registry.config.is_some() || trust.demanded().is_some();
        let entries = entries(&reference, trust, trust_configured.then_some(&config));
        let registries = registries(&reference, registry, &config);
        // Options change the registries and the trust of the file, so the combination is checked.
        flashjob_plugin_host::config::check(&registries, &entries, &config.limits)
            .map_err(|error| Failure::usage(format!("{}: {}", error.field, error.message)))?;
        let logins = logins(&reference, &registries).await?;
        let other = |error: std::io::Error| {
            Failure::new(
                Code::Other,
                "FileUnwritable",
                format!("no folder for temporary files: {}; set TMPDIR", root(&error)),
            )
        };
        let cache = tempfile::Builder::new().prefix("flashjob-").tempdir().map_err(other)?;
        // wasmtime cannot stop a compilation, so it runs in a child process of this program, with
        // limits of memory and time.
        let compiler = std::env::current_exe().map_err(other)?;
        let settings = HostSettings {
            cache: cache.path().to_owned(),
            compiler,
            limits: config.limits,
            registries,
            trust: entries.clone(),
        };
        let plugin = PluginSource {
            name: reference.to_string(),
            reference,
            // The question is what the reference means now. Nothing is cached between runs.
            pull_policy: PullPolicy::Always,
            // Concerns local files, which have no signatures; references need what their trust
            // entry demands.
            allow_unsigned: true,
        };
        Ok(Self {
            host: Host::new(settings)?,
            config,
            trust_configured,
            trust: entries,
            plugin,
            logins,
            _cache: cache,
        })
    }

    /// Returns the component's reference.
    pub fn reference(&self) -> &Reference {
        &self.plugin.reference
    }

    /// Fetches the component and verifies its signatures.
    ///
    /// # Errors
    /// The component cannot be fetched, or is not trusted.
    pub async fn verify(&self) -> Result<Verified, Failure> {
        Ok(self.host.obtain(&self.plugin, &self.logins).await?)
    }

    /// Compiles the component and calls its `describe`.
    ///
    /// # Errors
    /// The component does not fit the contract, or fails.
    pub async fn start(&self, verified: &Verified) -> Result<Plugin, Failure> {
        let started = self.host.start(verified, &self.plugin).await;
        started.map_err(|error| {
            let failure = Failure::from(error);
            // The engine names a component only by its digest; the user knows it by the given
            // name.
            let name = match self.reference() {
                Reference::File { path, .. } => path.display().to_string(),
                reference => reference.to_string(),
            };
            let message = failure.message.replace(&verified.digest().to_string(), &name);
            Failure { message, ..failure }
        })
    }

    /// Returns the manifest and the signatures of the component.
    ///
    /// # Errors
    /// The registry does not answer.
    pub async fn published(&self, digest: &Digest) -> Result<Option<Published>, Failure> {
        Ok(self.host.published(&self.plugin.reference, digest, &self.logins).await?)
    }

    /// Returns the credentials for the component's registry and for that registry's mirrors.
    pub fn logins(&self) -> &Logins {
        &self.logins
    }

    /// Returns the pattern of the trust entry that applies to the component.
    pub fn trust_pattern(&self) -> Option<&str> {
        trust_entry(&self.plugin.reference, &self.trust)
            .map(|entry| entry.pattern.as_str())
            .filter(|_| self.trust_configured)
    }

    /// Returns in one word why the component may run, such as `Signed`.
    pub fn trust(&self, verified: &Verified) -> &'static str {
        match (self.reference(), verified.signed(), self.trust_configured) {
            (Reference::File { .. }, ..) => "LocalFile",
            (_, true, _) => "Signed",
            (_, false, true) => "UnsignedAllowed",
            (_, false, false) => "NotChecked",
        }
    }

    /// Returns the component's origin, digests, size and trust, in the form for programs.
    pub fn json(&self, verified: &Verified) -> Value {
        json!({
            "reference": self.reference().to_string(),
            "digest": verified.digest(),
            "componentDigest": Digest::of(verified.content()),
            "size": verified.content().len(),
            "trust": self.trust(verified),
        })
    }
}

/// Parses a command line argument: the path of an existing file, else an OCI reference.
///
/// # Errors
/// The argument is neither.
pub fn reference(named: &str) -> Result<Reference, Failure> {
    let path = Path::new(named);
    if path.is_file() {
        return Ok(Reference::File { path: path.to_owned(), digest: None });
    }
    // The name of a missing file can also be read as a reference, and the message would be about a
    // registry that nobody meant.
    let looks_like_a_file =
        !named.contains("://") && (named.ends_with(".wasm") || named.starts_with(['/', '.']));
    if looks_like_a_file {
        return Err(Failure::new(
            Code::Unavailable,
            "FileUnreadable",
            format!("there is no file {named}"),
        ));
    }
    named
        .parse()
        .map_err(|error| Failure::usage(format!("{named} is not a local file, and {error}")))
}

/// Reads and checks the operator's configuration.
///
/// # Errors
/// The file cannot be read, or the configuration is invalid.
pub fn read_config(path: &Path) -> Result<OperatorConfig, Failure> {
    Ok(flashjob_config::parse(&flashjob_config::read(path)?)?)
}

/// Returns the trust that applies: what the command line demands replaces the configuration's;
/// without both, nothing is demanded.
fn entries(
    reference: &Reference,
    trust: &TrustOptions,
    config: Option<&OperatorConfig>,
) -> Vec<TrustEntry> {
    // Trust entries match names of registries and image layouts; a local file has none.
    let Some(pattern) = reference.name() else { return Vec::new() };
    if let Some(cosign) = trust.demanded() {
        return vec![TrustEntry { pattern, cosign: Some(cosign), ..TrustEntry::default() }];
    }
    match config {
        Some(config) => config.trust.clone(),
        None => vec![TrustEntry { pattern, allow_unsigned: true, ..TrustEntry::default() }],
    }
}

/// Returns the configuration's registries, with the command line's options for this one.
fn registries(
    reference: &Reference,
    options: &RegistryOptions,
    config: &OperatorConfig,
) -> Vec<RegistryConfig> {
    let mut registries = config.registries.clone();
    let Reference::Registry { host, .. } = reference else { return registries };
    if options.ca_file.is_none() && !options.plain_http {
        return registries;
    }
    let index = registries.iter().position(|registry| registry.is_at(host)).unwrap_or_else(|| {
        registries.push(RegistryConfig { host: host.clone(), ..RegistryConfig::default() });
        registries.len() - 1
    });
    // Both options replace the configured values together: plain HTTP and a certificate authority
    // contradict each other.
    registries[index].ca_file.clone_from(&options.ca_file);
    registries[index].plain_http = options.plain_http;
    registries
}

/// Returns credentials from Docker's configuration for the registry and its mirrors. Where the
/// operator has credentials for a host, they are required here too.
async fn logins(reference: &Reference, registries: &[RegistryConfig]) -> Result<Logins, Failure> {
    let mut logins = Vec::new();
    // Each host gets only its own credentials: a mirror never receives the password of the
    // registry.
    for (host, repository) in places(reference, registries) {
        let docker_login = docker_config::credentials(&host, &repository).await?;
        let registry = registries.iter().find(|registry| registry.is_at(&host));
        match (docker_login, registry.and_then(|registry| registry.credentials.as_ref())) {
            // An anonymous request could be refused, or answered with 404, where the operator's is
            // not; the result would not be what the operator gets.
            (None, Some(of_operator)) => {
                let message = format!(
                    "the operator logs in to {host} with the password in Secret {}, and there are \
                     no credentials for it here; log in with docker login {host} or oras login \
                     {host}",
                    of_operator.secret_name
                );
                return Err(Failure::new(Code::Unavailable, "CredentialsMissing", message));
            }
            (docker_login, _) => {
                logins.extend(docker_login.map(|credentials| (host, credentials)))
            }
        }
    }
    Ok(logins.into_iter().collect())
}
