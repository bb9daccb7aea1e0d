//! `flash`: a FlashJob, by a dialogue or from options. Devices are flashed in batches, each added
//! to the same FlashJob when the one before has its results; nothing in flight is replaced.
//!
//! - [`dialogue`] asks for everything; [`order`] is what was asked for.
//! - [`batches`] carries it out, and [`apply`] changes the FlashJob; [`merge`] decides what
//!   becomes of one that is there already: results are kept, and nothing is flashed twice unless
//!   that is asked for; [`file`] is the file that is written. [`dry_run`] shows it all and applies
//!   nothing.

mod apply;
mod batches;
mod dialogue;
mod dry_run;
mod file;
mod merge;
pub mod order;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::devices::Filter;
use super::inventory::{self, Device};
use super::prompt;
use crate::cluster::{Place, Scope, refused};
use crate::duration;
use crate::failure::Failure;
use crate::interruption::Interruption;
use crate::output::Output;
use crate::report::Report;
use batches::Pacing;
use order::{Chosen, Firmware, Order};

/// File to which the dialogue writes the FlashJob.
const FILE: &str = "flashjob_operator/config/samples/application_v1alpha1_flashjob.yaml";
/// Devices of a batch, unless another number is given.
const BATCH: usize = 5;
/// Seconds between batches in the dialogue, unless another number is given.
const DELAY: u64 = 60;

/// Flash devices. Without options for devices and firmware it asks for them, on a terminal or a
/// pipe.
#[derive(Debug, Args)]
pub struct Flash {
    #[command(flatten)]
    filter: Filter,
    /// Only devices that report this version now.
    #[arg(long, value_name = "VERSION", help_heading = "Filters")]
    reported_version: Option<String>,
    /// All devices of the namespace.
    #[arg(long, help_heading = "Filters")]
    all: bool,
    /// The firmware, usually an OCI reference.
    #[arg(long, value_name = "REFERENCE", value_parser = order::word)]
    firmware: Option<String>,
    /// The version that devices report once they run the firmware.
    #[arg(long, value_name = "VERSION", value_parser = order::word)]
    version: Option<String>,
    /// Image of the flash Pods. Default: the one that the device plugin names.
    #[arg(long, value_name = "IMAGE", value_parser = order::image)]
    pod_image: Option<String>,
    /// Devices of a batch. Default: all at once; in the dialogue 5.
    #[arg(long, value_name = "N", value_parser = order::batch_size)]
    batch_size: Option<usize>,
    /// Time between the results of a batch and the next one: 30s, 5m. Default: none; in the
    /// dialogue 60s.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    delay: Option<Duration>,
    /// Devices in flight at once.
    #[arg(long, value_name = "N", value_parser = order::parallelism)]
    parallelism: Option<i32>,
    /// Go on with the next batch though devices failed.
    #[arg(long)]
    keep_going: bool,
    /// Flash devices again that have their result for this firmware already.
    #[arg(long)]
    again: bool,
    /// Name of the FlashJob.
    #[arg(long, value_name = "NAME", default_value = "flashjob")]
    name: String,
    /// Write the FlashJob into this file. The dialogue always writes one.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Stop waiting after this time; the FlashJob goes on.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Show the FlashJob as it would be, have the API server check it, and apply nothing. With
    /// --file it is written.
    #[arg(long)]
    dry_run: bool,
    /// Ask for everything, also where answers come from a pipe. Filters narrow the list that is
    /// chosen from; other options are defaults.
    #[arg(long)]
    interactive: bool,
    /// Do not ask before devices are flashed.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    scope: Scope,
}

impl Flash {
    fn is_dialogue(&self) -> bool {
        let named = !self.filter.is_empty() || self.reported_version.is_some() || self.all;
        self.interactive || !(named || self.firmware.is_some() || self.dry_run)
    }

    /// Returns true for a device that all options take.
    fn takes(&self, device: &Device) -> bool {
        let reports = |asked: &String| device.version.as_ref() == Some(asked);
        self.filter.takes(device) && self.reported_version.as_ref().is_none_or(reports)
    }
}

pub async fn run(
    command: &Flash,
    output: Output,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    interruption.says("nothing was applied");
    if command.is_dialogue() {
        if output != Output::Table {
            return Err(Failure::usage(
                "the dialogue has no -o; name devices and --firmware by options instead",
            ));
        }
        return dialogue::run(command, interruption).await;
    }
    let (Some(firmware), Some(version)) = (&command.firmware, &command.version) else {
        return Err(Failure::usage(
            "--firmware and --version are needed, and which devices: --type, --application, --node, \
             --uid, --property, --reported-version or --all. Without any of these the command asks",
        ));
    };
    if command.filter.is_empty() && command.reported_version.is_none() && !command.all {
        return Err(Failure::usage(
            "which devices? --type, --application, --node, --uid, --property, --reported-version, \
             or --all for all of the namespace",
        ));
    }
    let place = command.scope.place().await?;
    let chosen = chosen(command, &place).await?;
    let firmware = Firmware {
        reference: firmware.clone(),
        version: version.clone(),
        pod_image: command.pod_image.clone(),
    };
    let order = order(command, &place, &chosen, firmware);
    let left = batches::left(&place, &order).await?;
    chosen.warn_of_current(&left.uids, &order.firmware.version);
    let pacing = Pacing {
        batch_size: command.batch_size.unwrap_or(order.targets.len()),
        delay: command.delay.unwrap_or_default(),
        keep_going: command.keep_going,
        timeout: command.timeout,
    };
    if command.dry_run {
        return dry_run::show(&place, order, &pacing, command.file.as_deref()).await;
    }
    // Where nothing is left, that is all there is to say.
    if !left.uids.is_empty() {
        prompt::confirm(&left.question(&order, &pacing), command.yes).await?;
    }
    let told = match output {
        Output::Table => batches::Told::Options,
        _ => batches::Told::Nothing,
    };
    batches::carry_out(&place, order, pacing, command.file.as_deref(), told, interruption).await
}

async fn chosen(command: &Flash, place: &Place) -> Result<Chosen, Failure> {
    let devices = inventory::devices(&place.client, Some(&place.namespace)).await;
    let mut devices = devices.map_err(|error| refused("list Akri's Instances", &error))?;
    if let Some(uid) = command.filter.unmatched(&devices) {
        return Err(super::devices::no_such_uid(uid));
    }
    let all = devices.len();
    devices.retain(|device| command.takes(device));
    if devices.is_empty() {
        return Err(super::devices::nothing(all, Some(&place.namespace)));
    }
    Ok(Chosen {
        devices,
        by_type: command.filter.kind.is_some(),
        by_application: command.filter.application.is_some(),
    })
}

fn order(command: &Flash, place: &Place, chosen: &Chosen, firmware: Firmware) -> Order {
    let (device, application) = chosen.guards();
    // The same devices in the same run: the value only has to be one that was not there before.
    let run = command.again.then(|| format!("again-{}", Timestamp::now()));
    Order {
        name: command.name.clone(),
        namespace: place.namespace.clone(),
        targets: chosen.targets(),
        device,
        application,
        firmware,
        parallelism: command.parallelism,
        run,
    }
}
