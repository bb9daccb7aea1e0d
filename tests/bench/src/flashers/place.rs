//! Simulated devices, a registry with their firmware, and the same firmware as a file.

use std::path::PathBuf;

use anyhow::Context;
use flashjob_simulators::devices::{self, Fleet, Group};
use flashjob_simulators::firmware::Firmware;
use flashjob_testbed::artifacts::push_firmware;
use flashjob_testbed::certificates::Authority;
use flashjob_testbed::process::{free_port, script};
use flashjob_testbed::registry::Registry;
use flashjob_testbed::simulators::write_access;
use tempfile::TempDir;

/// Image reference of the firmware; the testbed's registry acts as a mirror of the one named here.
pub const FIRMWARE: &str = "harbor.nbfc.io/bench/firmware:1";
/// Repository and tag of the firmware.
const NAME: &str = "bench/firmware:1";

/// Devices and their firmware.
pub struct Place {
    /// The devices.
    pub fleet: Fleet,
    /// Port on which they connect back.
    pub port: u16,
    /// Path of the firmware as a file.
    pub file: PathBuf,
    /// Size of that file, in bytes.
    pub bytes: usize,
    /// Folder with the files to access the registry.
    pub access: PathBuf,
    /// Folder of all these files.
    pub folder: TempDir,
    _registry: Registry,
}

impl Place {
    /// Switches on this many devices, with incompressible firmware of this size.
    pub async fn new(devices: usize, size: usize) -> anyhow::Result<Self> {
        let programs = PathBuf::from(script("tests/control-plane/build.sh")?);
        let folder = tempfile::Builder::new().prefix("flashjob-bench-").tempdir()?;
        let authority = Authority::new(folder.path())?;
        let registry = Registry::start(&programs, folder.path(), &authority).await?;
        let mut payload = vec![0; size];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut payload).ok().context("there is no randomness")?;
        let firmware = Firmware {
            device: "esp32".to_owned(),
            application: "bench".to_owned(),
            version: "2".to_owned(),
            payload,
        };
        push_firmware(&registry, NAME, std::slice::from_ref(&firmware)).await?;
        let (file, access) = (folder.path().join("firmware"), folder.path().join("access"));
        let encoded = firmware.encode()?;
        std::fs::write(&file, &encoded)?;
        write_access(&access, &registry, &authority.certificate)?;
        let port = free_port()?;
        let fleet = Fleet::new(devices::Settings {
            address: [127, 0, 0, 1].into(),
            callback_port: port,
            reboot_ms: 1,
            receive_timeout_ms: 60_000,
        });
        fleet.add(&format!("esp32:bench:1={devices}").parse::<Group>()?).await?;
        Ok(Self { fleet, port, file, bytes: encoded.len(), access, folder, _registry: registry })
    }

    /// Returns the number of devices, each of which has a flash program.
    pub fn flashers(&self) -> usize {
        self.fleet.reports().len()
    }

    /// Returns a loopback address for a device's flash program.
    pub fn address(index: usize) -> String {
        format!("127.90.{}.{}", index / 250, index % 250 + 1)
    }
}
