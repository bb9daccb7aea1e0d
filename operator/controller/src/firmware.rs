//! Resolves firmware at its registry, for a FlashJob with a `firmwarePolicy` and for a
//! FlashRollout: its digest, the device types that it is for, and its signatures; and has plugins
//! inspect it.

mod failure;
mod inspect;

use std::sync::Arc;
use std::time::Duration;

use flashjob_api::{FirmwarePin, FirmwareVerification};
use flashjob_artifacts::config::{CosignTrust, TrustEntry};
use flashjob_artifacts::firmware::{Beginnings, Firmware, UnverifiedFirmware, look_up, verify};
use flashjob_artifacts::trust::entry;
use flashjob_artifacts::{Reference, Source};
use flashjob_plugin_host::types::BEGINNING_BYTES;
use flashjob_rules::firmware::{FirmwareState, ResolveFirmware, ResolvedFirmware};
use flashjob_rules::world::change::{Change, Subject};

use crate::cluster::passwords::Passwords;
use crate::operator::Operator;
use failure::FirmwareFailure;
use inspect::inspect;

/// Timeout of one lookup at a registry.
const LIMIT: Duration = Duration::from_secs(60);
/// Timeout of an inspection: a whole layer may have to be fetched.
const INSPECTION_LIMIT: Duration = Duration::from_secs(600);
/// Name of a lookup in the message of its timeout.
const ANSWER: &str = "the response of its registry";
/// First pause before a registry is asked again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Longest pause, also for a failure that somebody has to fix.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Resolves firmware for a subject, and asks the registry again for as long as the subject waits
/// for another answer.
pub async fn resolve(operator: Arc<Operator>, subject: Subject, question: Arc<ResolveFirmware>) {
    let (mut pause, mut beginnings) = (FIRST_PAUSE, Beginnings::new(BEGINNING_BYTES));
    while is_awaited(&operator, &subject, &question).await {
        let state = match ask(&operator, &subject, &question, &mut beginnings).await {
            Ok(firmware) => FirmwareState::Resolved(firmware),
            Err(failure) => failure.into_state(),
        };
        if let FirmwareState::Failed { message, .. } = &state {
            tracing::warn!("{subject}: firmware: {message}");
        }
        let (subject, question) = (subject.clone(), question.clone());
        operator.tell(Change::Firmware { subject, question, state });
        // The next plan decides whether this answer is enough: firmware may lack a platform.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn is_awaited(
    operator: &Operator,
    subject: &Subject,
    question: &Arc<ResolveFirmware>,
) -> bool {
    let (subject, question) = (subject.clone(), question.clone());
    let awaits = operator.ask(move |world| {
        world.inquiry(&subject).is_some_and(|inquiry| inquiry.awaits(&question))
    });
    awaits.await.unwrap_or(false)
}

async fn ask(
    operator: &Arc<Operator>,
    subject: &Subject,
    question: &ResolveFirmware,
    beginnings: &mut Beginnings,
) -> Result<ResolvedFirmware, FirmwareFailure> {
    let written = &question.reference;
    let reference = match written.parse() {
        Ok(reference @ Reference::Registry { .. }) => reference,
        _ if question.pin == FirmwarePin::None => return unresolved(question),
        other => {
            let fault = match other {
                Err(error) => format!("{error}"),
                Ok(_) => "it is not a reference to a registry".to_owned(),
            };
            let message = format!(
                "firmware {written} cannot be pinned to a digest: {fault}; set \
                 firmwarePolicy.pin: None to pass it on as written"
            );
            return Err(FirmwareFailure { reason: "InvalidReference", message, permanent: true });
        }
    };
    let access = operator.firmware_access();
    let passwords =
        Passwords::of(operator.secrets(&operator.client), &reference, &access.registries);
    let user = subject.to_string();
    let logins = within(LIMIT, ANSWER, question, async {
        let logins = passwords.read(&user).await;
        logins.map_err(|error| FirmwareFailure::unavailable(error.to_string(), true))
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

/// Runs work with a time limit; `what` names the work in the message of the timeout.
async fn within<T>(
    limit: Duration,
    what: &str,
    question: &ResolveFirmware,
    work: impl Future<Output = Result<T, FirmwareFailure>>,
) -> Result<T, FirmwareFailure> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let (reference, seconds) = (&question.reference, limit.as_secs());
        let message = format!("firmware {reference}: {what} took longer than {seconds} s");
        Err(FirmwareFailure::unavailable(message, false))
    })
}

/// Returns the result for firmware that is not resolved at a registry: a failure if a signature is
/// required.
fn unresolved(question: &ResolveFirmware) -> Result<ResolvedFirmware, FirmwareFailure> {
    match question.verify {
        FirmwareVerification::IfConfigured => Ok(ResolvedFirmware::default()),
        FirmwareVerification::Required => Err(FirmwareFailure::untrusted(format!(
            "firmware {} is not in a registry, so it cannot have a signature there, but \
             firmwarePolicy.verify is Required",
            question.reference
        ))),
    }
}

/// Verifies the signatures that the trust policy demands. Returns the signers, if there are any.
async fn signer(
    source: &mut Source<'_>,
    reference: &Reference,
    firmware: &Firmware,
    question: &ResolveFirmware,
    trust: &[TrustEntry],
) -> Result<Option<String>, FirmwareFailure> {
    let required = question.verify == FirmwareVerification::Required;
    let Some(entry) = entry(reference, trust) else {
        return match required {
            false => Ok(None),
            true => Err(FirmwareFailure::untrusted(format!(
                "no entry under firmwareTrust in the operator's configuration matches firmware \
                 {reference}, but firmwarePolicy.verify is Required; add one"
            ))),
        };
    };
    // Only manifests that are flashed need a signature of their own.
    let is_flashed =
        |kind: &str| question.device_types.iter().any(|device_type| device_type == kind);
    let flashed = firmware.platforms.iter().filter(|(platform, _)| {
        let kind = platform.device_type().map(flashjob_api::comparable_type);
        kind.is_some_and(|kind| is_flashed(&kind))
    });
    // The index or the manifest of the platform may be signed: either signature covers its
    // devices.
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
                FirmwareFailure::unavailable(error.to_string(), !source.is_transient())
            }
            UnverifiedFirmware::Trust { .. } => FirmwareFailure::untrusted(error.to_string()),
        })?;
    }
    if !signed && required {
        return Err(FirmwareFailure::untrusted(format!(
            "firmwareTrust entry {} allows firmware {reference} without a signature, but \
             firmwarePolicy.verify is Required",
            entry.pattern
        )));
    }
    Ok(entry.cosign.as_ref().filter(|_| signed).map(names))
}

/// Returns the keys or identities of which a signature was found.
fn names(cosign: &CosignTrust) -> String {
    let keys = cosign.public_key_files.iter().map(|file| file.display().to_string());
    let identities = cosign.keyless.iter().flat_map(|keyless| &keyless.identities);
    let identities = identities.map(|identity| {
        let subject = identity.subject.as_ref().or(identity.subject_regexp.as_ref());
        subject.cloned().unwrap_or_default()
    });
    keys.chain(identities).collect::<Vec<_>>().join(", ")
}
