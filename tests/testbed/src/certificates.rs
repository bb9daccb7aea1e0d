//! A certificate authority for one testbed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Address of the Service `kubernetes`: the first of [`SERVICE_ADDRESSES`].
const KUBERNETES_SERVICE: &str = "10.0.0.1";
/// Addresses of the cluster's Services.
pub const SERVICE_ADDRESSES: &str = "10.0.0.0/16";

/// A certificate authority, with the path of its certificate.
pub struct Authority {
    /// Path of its certificate, in PEM.
    pub certificate: PathBuf,
    /// Address on which the servers of this testbed listen; their certificates are valid for it.
    pub address: Ipv4Addr,
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    /// Creates the authority of a testbed whose servers listen on loopback, with its files in the
    /// folder.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST, folder)
    }

    /// Creates the authority of a testbed whose servers listen on this address.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn at(address: Ipv4Addr, folder: &Path) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        parameters.distinguished_name.push(DnType::CommonName, "testbed");
        let certificate = folder.join("ca.crt");
        std::fs::write(&certificate, parameters.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(parameters, key);
        Ok(Self { certificate, address, issuer, folder: folder.to_owned() })
    }

    /// Creates the certificate and key of a server, and returns their paths. The certificate is
    /// valid for loopback, for the address of this testbed, and for the names and the first
    /// address of the Service `kubernetes`.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn server(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let address = self.address.to_string();
        let names =
            ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default.svc", KUBERNETES_SERVICE];
        let names = names.into_iter().chain((!self.address.is_loopback()).then_some(&*address));
        let mut parameters = CertificateParams::new(names.map(str::to_owned).collect::<Vec<_>>())?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        self.sign(name, parameters)
    }

    /// Creates the certificate and key of a client, and returns their paths. The API server reads
    /// the certificate as the user `name` in the group `group`.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn client(&self, name: &str, group: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.distinguished_name.push(DnType::OrganizationName, group);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, parameters)
    }

    fn sign(
        &self,
        name: &str,
        mut parameters: CertificateParams,
    ) -> anyhow::Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        parameters.use_authority_key_identifier_extension = true;
        let signed = parameters.signed_by(&key, &self.issuer)?;
        let (certificate, file) =
            (self.folder.join(format!("{name}.crt")), self.folder.join(format!("{name}.key")));
        std::fs::write(&certificate, signed.pem())?;
        std::fs::write(&file, key.serialize_pem())?;
        Ok((certificate, file))
    }
}
