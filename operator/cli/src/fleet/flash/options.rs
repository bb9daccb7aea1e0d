//! Options of `flash`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::order::{self, Chosen, Firmware, Order};
use crate::cluster::{Place, Scope};
use crate::duration;
use crate::fleet::devices::Filter;
use crate::fleet::inventory::Device;

/// Flash devices. Without options for devices and firmware it asks for them, on a terminal or a
/// pipe.
#[derive(Debug, Args)]
pub struct Flash {
    #[command(flatten)]
    pub(super) filter: Filter,
    /// Only devices that report this version now.
    #[arg(long, value_name = "VERSION", help_heading = "Filters")]
    pub(super) reported_version: Option<String>,
    /// All devices of the namespace.
    #[arg(long, help_heading = "Filters")]
    pub(super) all: bool,
    /// The firmware, usually an OCI reference.
    #[arg(long, value_name = "REFERENCE", value_parser = order::word)]
    pub(super) firmware: Option<String>,
    /// The version that devices report once they run the firmware.
    #[arg(long, value_name = "VERSION", value_parser = order::word)]
    pub(super) version: Option<String>,
    /// Image of the flash Pods. Default: the one that the device plugin names.
    #[arg(long, value_name = "IMAGE", value_parser = order::image)]
    pub(super) pod_image: Option<String>,
    /// Devices of a batch. Default: all at once; in the dialogue 5.
    #[arg(long, value_name = "N", value_parser = order::batch_size)]
    pub(super) batch_size: Option<usize>,
    /// Time between the results of a batch and the next one: 30s, 5m. Default: none; in the
    /// dialogue 60s.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(super) delay: Option<Duration>,
    /// Devices in flight at once.
    #[arg(long, value_name = "N", value_parser = order::parallelism)]
    pub(super) parallelism: Option<i32>,
    /// Go on with the next batch though devices failed.
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Flash devices again that have their result for this firmware already.
    #[arg(long)]
    pub(super) again: bool,
    /// Name of the FlashJob.
    #[arg(long, value_name = "NAME", default_value = "flashjob")]
    pub(super) name: String,
    /// Write the FlashJob into this file. The dialogue always writes one.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Stop waiting after this time; the FlashJob goes on.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(super) timeout: Option<Duration>,
    /// Show the FlashJob as it would be, have the API server check it, and apply nothing. With
    /// --file it is written.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Ask for everything, also where answers come from a pipe. Filters narrow the list that is
    /// chosen from; other options are defaults.
    #[arg(long)]
    pub(super) interactive: bool,
    /// Do not ask before devices are flashed.
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) scope: Scope,
}

impl Flash {
    pub(super) fn is_dialogue(&self) -> bool {
        let named = !self.filter.is_empty() || self.reported_version.is_some() || self.all;
        self.interactive || !(named || self.firmware.is_some() || self.dry_run)
    }

    /// Returns true if all filters accept the device.
    pub(super) fn takes(&self, device: &Device) -> bool {
        let reports = |version: &String| device.version.as_ref() == Some(version);
        self.filter.takes(device) && self.reported_version.as_ref().is_none_or(reports)
    }

    /// Returns the order for the selected devices.
    pub(super) fn order(&self, place: &Place, chosen: &Chosen, firmware: Firmware) -> Order {
        let (device, application) = chosen.guards();
        // A new run of the same devices: the value only has to differ from all earlier ones.
        let run = self.again.then(|| format!("again-{}", Timestamp::now()));
        Order {
            name: self.name.clone(),
            namespace: place.namespace.clone(),
            targets: chosen.targets(),
            device,
            application,
            firmware,
            parallelism: self.parallelism,
            run,
        }
    }
}
