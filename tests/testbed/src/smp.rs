//! A simulated device with MCUboot on the testbed's network.

use flashjob_api::akri::Instance;
use flashjob_simulators::akri;
use flashjob_simulators::smp::{Behaviour, SmpDevice, mcuboot_image};
use kube::api::PostParams;
use kube::{Api, ResourceExt};

use crate::Testbed;
use crate::artifacts::push_files;

/// Image reference of the devices' firmware, version 2.0.0.
pub const FIRMWARE: &str = "harbor.nbfc.io/nubificus/mcuboot-firmware:2.0.0";
/// Their device type.
const DEVICE: &str = "nrf52840";
/// Size of their images, in bytes.
const SIZE: u32 = 100_000;

/// A device that runs version 1.0.0 at first.
pub struct NetworkDevice {
    /// Uid of its Instance.
    pub uid: String,
    /// The device.
    pub device: SmpDevice,
}

impl NetworkDevice {
    /// Switches a device on, creates its Instance with this name, and pushes [`FIRMWARE`]. The
    /// Instance has the device's endpoint and type, but no version.
    ///
    /// # Errors
    /// No port is free, the registry refuses the firmware, or the API server refuses the Instance.
    pub async fn switch_on(
        testbed: &Testbed,
        name: &str,
        behaviour: Behaviour,
    ) -> anyhow::Result<Self> {
        let firmware = FIRMWARE.split_once('/').map_or(FIRMWARE, |(_, name)| name);
        let image = mcuboot_image([2, 0, 0], SIZE);
        push_files(&testbed.registry, firmware, &[(DEVICE.to_owned(), image)]).await?;
        let device = SmpDevice::on_udp(mcuboot_image([1, 0, 0], SIZE), behaviour)?;
        let properties = [("HOST_ENDPOINT", device.place.clone()), ("DEVICE", DEVICE.to_owned())];
        let instance = akri::instance(name, DEVICE, "simulated-node", properties);
        let instances: Api<Instance> = Api::namespaced(testbed.client.clone(), "default");
        let instance = instances.create(&PostParams::default(), &instance).await?;
        Ok(Self { uid: instance.uid().unwrap_or_default(), device })
    }
}
