//! Resolves firmware at its registry, for a FlashJob with a `firmwarePolicy` and for a
//! FlashRollout: its digest, the device types that it is for, and its signatures; and has plugins
//! inspect it.

mod inspect;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flashjob_api::{FirmwarePin, FirmwareVerification};
use flashjob_artifacts::config::{CosignTrust, RegistryConfig, TrustEntry};
use flashjob_artifacts::firmware::{Beginnings, Firmware, UnverifiedFirmware, look_up, verify};
use flashjob_artifacts::trust::{entry, fingerprint};
use flashjob_artifacts::{Digest, Reference, RegistryError, Source};
use flashjob_plugin_host::types::BEGINNING_BYTES;
use flashjob_rules::firmware::{FirmwareState, FirmwareTrust, ResolveFirmware, ResolvedFirmware};
use flashjob_rules::flashjob::observed::Inquiry;

use crate::config::OperatorConfig;
use crate::operator::{Operator, Subject};
use crate::passwords::Passwords;
use inspect::inspect;

/// Longest time for one look at a registry.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest time for an inspection: a whole layer may have to be fetched.
const INSPECTION_LIMIT: Duration = Duration::from_secs(600);
/// Name of what is waited for meanwhile.
const ANSWER: &str = "the answer of its registry";
/// Pause before a registry that does not answer is asked again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause, also where somebody has to act first.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Part of the configuration that firmware is looked up with.
#[derive(Debug, Default)]
pub struct Access {
    /// Connection settings of registries.
    pub registries: Vec<RegistryConfig>,
    /// Signers of firmware.
    pub trust: Vec<TrustEntry>,
    /// Digest of each entry of `trust`, with its keys, by its pattern.
    fingerprints: HashMap<String, Digest>,
}

impl Access {
    /// The part of a configuration. Reads the keys that it names.
    #[must_use]
    pub fn of(config: &OperatorConfig) -> Arc<Self> {
        let trust = config.firmware_trust.clone();
        let of = |entry: &TrustEntry| (entry.pattern.clone(), fingerprint(entry));
        let fingerprints = trust.iter().map(of).collect();
        Arc::new(Self { registries: config.registries.clone(), trust, fingerprints })
    }

    /// Digest of the entry that decides on a firmware, with the keys that it had when this
    /// configuration was taken; None: no entry does. What was verified by an earlier one may not
    /// be trusted any more.
    fn trust_in(&self, firmware: &str) -> Option<String> {
        let entry = entry(&firmware.parse().ok()?, &self.trust)?;
        self.fingerprints.get(&entry.pattern).map(Digest::to_string)
    }

    /// The same for the rules, which know nothing of references and keys.
    #[must_use]
    pub fn trust(self: &Arc<Self>) -> FirmwareTrust {
        let access = Arc::clone(self);
        FirmwareTrust::new(move |firmware| access.trust_in(firmware))
    }
}

/// Answers a question, and asks again for as long as the subject waits for another answer.
pub async fn resolve(operator: Arc<Operator>, subject: Subject, question: Arc<ResolveFirmware>) {
    let (mut pause, mut beginnings) = (FIRST_PAUSE, Beginnings::new(BEGINNING_BYTES));
    while inquiry(&operator, &subject, |inquiry| inquiry.awaits(&question)) {
        let state = match ask(&operator, &subject, &question, &mut beginnings).await {
            Ok(firmware) => FirmwareState::Resolved(firmware),
            Err(failure) => failure.into_state(),
        };
        if let FirmwareState::Failed { message, .. } = &state {
            tracing::warn!("{subject}: firmware: {message}");
        }
        if !inquiry(&operator, &subject, |inquiry| inquiry.take(&question, state)) {
            return;
        }
        operator.look_at([subject.clone()]);
        // The next plan says whether this answer does: firmware may lack a platform.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks at the inquiry of a subject; false where the subject is gone.
fn inquiry(
    operator: &Operator,
    subject: &Subject,
    look: impl FnOnce(&mut Inquiry) -> bool,
) -> bool {
    let mut world = operator.world();
    let inquiry = match subject {
        Subject::Job(key) => world.memory.get_mut(key).map(|memory| &mut memory.firmware),
        Subject::Rollout(key) => {
            world.rollouts.memory.get_mut(key).map(|memory| &mut memory.firmware)
        }
    };
    inquiry.is_some_and(look)
}

/// Reason for which firmware is not resolved.
struct Failure {
    reason: &'static str,
    message: String,
    permanent: bool,
}

impl Failure {
    fn unavailable(message: String, permanent: bool) -> Self {
        Self { reason: "FirmwareUnavailable", message, permanent }
    }

    fn untrusted(message: String) -> Self {
        Self { reason: "FirmwareUntrusted", message, permanent: true }
    }

    fn into_state(self) -> FirmwareState {
        let Self { reason, message, permanent } = self;
        FirmwareState::Failed { reason: reason.to_owned(), message, permanent }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::unavailable(error.to_string(), !error.is_transient())
    }
}

async fn ask(
    operator: &Arc<Operator>,
    subject: &Subject,
    question: &ResolveFirmware,
    beginnings: &mut Beginnings,
) -> Result<ResolvedFirmware, Failure> {
    let written = &question.reference;
    let reference = match written.parse() {
        Ok(reference @ Reference::Registry { .. }) => reference,
        _ if question.pin == FirmwarePin::None => return unresolved(question),
        other => {
            let fault = match other {
                Err(error) => format!("{error}"),
                Ok(_) => "it is no reference to a registry".to_owned(),
            };
            let message = format!(
                "firmware {written} cannot be pinned to a digest: {fault}; set firmwarePolicy.pin: \
                 None to pass it on as written"
            );
            return Err(Failure { reason: "InvalidReference", message, permanent: true });
        }
    };
    let access = operator.firmware_access();
    let passwords = Passwords::of(operator, &reference, &access.registries);
    let user = subject.to_string();
    let logins = within(LIMIT, ANSWER, question, async {
        let logins = passwords.read(&user).await;
        logins.map_err(|error| Failure::unavailable(error.to_string(), true))
    })
    .await?;
    let Some(mut source) = Source::of(&reference, &access.registries, &logins)? else {
        return unresolved(question);
    };
    let (firmware, signer) = within(LIMIT, ANSWER, question, async {
        let firmware = look_up(&mut source, &reference).await?;
        let signer = signer(&mut source, &reference, &firmware, question, &access.trust).await?;
        Ok((firmware, signer))
    })
    .await?;
    let inspected = inspect(operator, subject, question, &mut source, &firmware, beginnings);
    within(INSPECTION_LIMIT, "its inspection", question, inspected).await?;
    let types = firmware.platforms.iter().filter_map(|(platform, _)| platform.device_type());
    Ok(ResolvedFirmware {
        digest: Some(firmware.digest.to_string()),
        platforms: types.map(str::to_owned).collect(),
        signer,
    })
}

/// Fails where work takes longer than its limit; `what` names the work in the message.
async fn within<T>(
    limit: Duration,
    what: &str,
    question: &ResolveFirmware,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let (reference, seconds) = (&question.reference, limit.as_secs());
        let message = format!("firmware {reference}: {what} took longer than {seconds} s");
        Err(Failure::unavailable(message, false))
    })
}

/// Firmware that nothing can be said about; a signature that is required cannot be had then.
fn unresolved(question: &ResolveFirmware) -> Result<ResolvedFirmware, Failure> {
    match question.verify {
        FirmwareVerification::IfConfigured => Ok(ResolvedFirmware::default()),
        FirmwareVerification::Required => Err(Failure::untrusted(format!(
            "firmware {} is in no registry, so nobody can have signed it there, and \
             firmwarePolicy.verify is Required",
            question.reference
        ))),
    }
}

/// Returns the signers of the firmware, where a signature is asked for.
async fn signer(
    source: &mut Source<'_>,
    reference: &Reference,
    firmware: &Firmware,
    question: &ResolveFirmware,
    trust: &[TrustEntry],
) -> Result<Option<String>, Failure> {
    let required = question.verify == FirmwareVerification::Required;
    let Some(entry) = entry(reference, trust) else {
        return match required {
            false => Ok(None),
            true => Err(Failure::untrusted(format!(
                "no entry under firmwareTrust in the operator's configuration matches firmware \
                 {reference}, and firmwarePolicy.verify is Required; add one"
            ))),
        };
    };
    // Only what is flashed needs a signature of its own.
    let is_flashed = |kind: &str| question.device_types.iter().any(|wanted| wanted == kind);
    let flashed = firmware.platforms.iter().filter(|(platform, _)| {
        let kind = platform.device_type().map(flashjob_api::comparable_type);
        kind.is_some_and(|kind| is_flashed(&kind))
    });
    let mut manifests: Vec<_> =
        flashed.map(|(_, manifest)| vec![&firmware.digest, manifest]).collect();
    if manifests.is_empty() {
        manifests.push(vec![&firmware.digest]);
    }
    let mut signed = true;
    for digests in manifests {
        let verified = verify(source, reference, trust, &digests).await;
        signed &= verified.map_err(|error| match &error {
            UnverifiedFirmware::Signatures { source, .. } => {
                Failure::unavailable(error.to_string(), !source.is_transient())
            }
            UnverifiedFirmware::Trust { .. } => Failure::untrusted(error.to_string()),
        })?;
    }
    if !signed && required {
        return Err(Failure::untrusted(format!(
            "firmwareTrust entry {} allows firmware {reference} without a signature, and \
             firmwarePolicy.verify is Required",
            entry.pattern
        )));
    }
    Ok(entry.cosign.as_ref().filter(|_| signed).map(names))
}

/// Keys or identities that a signature was found of.
fn names(cosign: &CosignTrust) -> String {
    let keys = cosign.public_key_files.iter().map(|file| file.display().to_string());
    let identities = cosign.keyless.iter().flat_map(|keyless| &keyless.identities);
    let identities = identities.map(|identity| {
        let subject = identity.subject.as_ref().or(identity.subject_regexp.as_ref());
        subject.cloned().unwrap_or_default()
    });
    keys.chain(identities).collect::<Vec<_>>().join(", ")
}
