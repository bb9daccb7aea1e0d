//! `plugin verify`: checks whether the operator would trust a component in a registry.

use clap::Args;
use flashjob_plugin_host::Reference;

use super::inspect;
use crate::failure::Failure;
use crate::report::{Report, Rows};
use crate::source::{ComponentSource, RegistryOptions, TrustOptions, reference};

/// Check signatures.
#[derive(Debug, Args)]
pub struct Verify {
    /// host/repository:tag, or @sha256:…
    reference: String,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    trust: TrustOptions,
}

pub(super) async fn run(command: &Verify) -> Result<Report, Failure> {
    // Without a demand each component would pass, and exit code 0 would be taken as proof.
    if command.trust.demanded().is_none() && command.registry.config.is_none() {
        return Err(Failure::usage(
            "it is not specified whose signature is required; add --key cosign.pub, or \
             --trusted-root, --certificate-identity and --certificate-oidc-issuer, or --config \
             with the operator's configuration",
        ));
    }
    let reference = reference(&command.reference)?;
    // The trust of a configuration does not apply to files either, so the check would always pass.
    if let Reference::File { path, .. } = &reference {
        let message = format!(
            "{} is a file, and signatures are kept in registries; name a reference",
            path.display()
        );
        return Err(Failure::usage(message));
    }
    let source = ComponentSource::of(reference, &command.registry, &command.trust).await?;
    let verified = source.verify().await?;
    let mut rows = Rows::default();
    rows.row("from", source.reference())
        .row("digest", verified.digest())
        .row("trust", inspect::trust(&source, &verified));
    let mut json = source.json(&verified);
    json["trustEntry"] = source.trust_pattern().into();
    Ok(Report::new(rows.to_string(), serde_json::json!({"source": json})))
}
