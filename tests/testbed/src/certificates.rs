//! A certificate authority for one testbed.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority, and where its certificate is.
pub struct Authority {
    /// Its certificate, in PEM.
    pub certificate: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    /// Makes one; its files are in the folder.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "testbed");
        let certificate = folder.join("ca.crt");
        std::fs::write(&certificate, parameters.self_signed(&key)?.pem())?;
        Ok(Self { certificate, issuer: Issuer::new(parameters, key), folder: folder.to_owned() })
    }

    /// A server's certificate and key for loopback.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn server(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let names = ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default.svc"];
        let mut parameters = CertificateParams::new(names.map(str::to_owned))?;
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.use_authority_key_identifier_extension = true;
        let signed = parameters.signed_by(&key, &self.issuer)?;
        let (certificate, file) =
            (self.folder.join(format!("{name}.crt")), self.folder.join(format!("{name}.key")));
        std::fs::write(&certificate, signed.pem())?;
        std::fs::write(&file, key.serialize_pem())?;
        Ok((certificate, file))
    }
}
