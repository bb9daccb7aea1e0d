//! A timestamp authority: RFC 3161, with the parts of DER that it needs.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber, SigningKey, date_time_ymd,
};
use sha2::{Digest, Sha256};
use spki::ObjectIdentifier;
use spki::der::Encode;

const ROOT: &str = "time-root.testbed";
/// Serial number; DER would need a leading zero byte for a byte above 127.
const SERIAL: [u8; 1] = [7];

/// An authority for timestamps.
pub struct Timestamps {
    /// Its certificate and that of its issuer, in DER.
    pub chain: [Vec<u8>; 2],
    key: KeyPair,
}

impl Timestamps {
    /// Creates an authority with a long-lived certificate, whose issuer's certificate is valid
    /// until a time in seconds since 1970.
    ///
    /// # Errors
    /// The authority cannot be created.
    pub fn new(until: i64) -> anyhow::Result<Self> {
        let named = |name: &str| -> anyhow::Result<CertificateParams> {
            let mut parameters = CertificateParams::new(Vec::new())?;
            parameters.distinguished_name = DistinguishedName::new();
            parameters.distinguished_name.push(DnType::CommonName, name);
            (parameters.not_before, parameters.not_after) =
                (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
            Ok(parameters)
        };
        let mut root = named(ROOT)?;
        root.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(until)?);
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root_key = KeyPair::generate()?;
        let root_certificate = root.self_signed(&root_key)?.der().to_vec();
        let key = KeyPair::generate()?;
        let mut parameters = named("time.testbed")?;
        parameters.serial_number = Some(SerialNumber::from_slice(&SERIAL));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // For timestamps and nothing else; RFC 3161 requires this extension to be critical.
        let usage = sequence(&[&name("1.3.6.1.5.5.7.3.8")?])?;
        let mut usage = CustomExtension::from_oid_content(&[2, 5, 29, 37], usage);
        usage.set_criticality(true);
        parameters.custom_extensions = vec![usage];
        let certificate = parameters.signed_by(&key, &Issuer::new(root, root_key))?.der().to_vec();
        Ok(Self { chain: [certificate, root_certificate], key })
    }

    /// Returns a signed timestamp: the authority saw `what` at the time `at`, in seconds since
    /// 1970.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn timestamp_token(&self, what: &[u8], at: i64) -> anyhow::Result<Vec<u8>> {
        let at = jiff::Timestamp::from_second(at)?.strftime("%Y%m%d%H%M%SZ").to_string();
        let sha256 = sequence(&[&name("2.16.840.1.101.3.4.2.1")?])?;
        let imprint = sequence(&[&sha256, &octets(&Sha256::digest(what))?])?;
        let info = sequence(&[
            &number(1)?,
            &name("1.3.6.1.4.1.57264.2")?,
            &imprint,
            &number(1)?,
            &element(0x18, &[at.as_bytes()])?,
        ])?;
        let kind = name("1.2.840.113549.1.9.16.1.4")?;
        let attribute = |of: &str, value: &[u8]| -> anyhow::Result<Vec<u8>> {
            sequence(&[&name(of)?, &element(0x31, &[value])?])
        };
        let certificate =
            sequence(&[&sequence(&[&sequence(&[&octets(&Sha256::digest(&self.chain[0]))?])?])?])?;
        let mut attributes = [
            attribute("1.2.840.113549.1.9.3", &kind)?,
            attribute("1.2.840.113549.1.9.4", &octets(&Sha256::digest(&info))?)?,
            attribute("1.2.840.113549.1.9.16.2.47", &certificate)?,
        ];
        attributes.sort();
        let attributes = attributes.each_ref().map(Vec::as_slice);
        let signature = self.key.sign(&element(0x31, &attributes)?)?;
        let issuer = sequence(&[&element(
            0x31,
            &[&sequence(&[&name("2.5.4.3")?, &element(0x0c, &[ROOT.as_bytes()])?])?],
        )?])?;
        let signer = sequence(&[
            &number(1)?,
            &sequence(&[&issuer, &number(SERIAL[0])?])?,
            &sha256,
            &element(0xa0, &attributes)?,
            &sequence(&[&name("1.2.840.10045.4.3.2")?])?,
            &octets(&signature)?,
        ])?;
        let content = sequence(&[&kind, &element(0xa0, &[&octets(&info)?])?])?;
        let signed = sequence(&[
            &number(3)?,
            &element(0x31, &[&sha256])?,
            &content,
            &element(0x31, &[&signer])?,
        ])?;
        let token = sequence(&[&name("1.2.840.113549.1.7.2")?, &element(0xa0, &[&signed])?])?;
        sequence(&[&sequence(&[&number(0)?])?, &token])
    }
}

/// Encodes an element in DER: its tag, its length and its content.
fn element(kind: u8, parts: &[&[u8]]) -> anyhow::Result<Vec<u8>> {
    let content = parts.concat();
    let length = spki::der::Length::try_from(content.len())?.to_der()?;
    Ok([&[kind][..], &length, &content].concat())
}

fn sequence(parts: &[&[u8]]) -> anyhow::Result<Vec<u8>> {
    element(0x30, parts)
}

fn octets(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    element(0x04, &[bytes])
}

fn number(number: u8) -> anyhow::Result<Vec<u8>> {
    Ok(number.to_der()?)
}

fn name(of: &str) -> anyhow::Result<Vec<u8>> {
    Ok(ObjectIdentifier::new(of)?.to_der()?)
}
