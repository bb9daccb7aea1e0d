//! `flash`: creates a FlashJob, by a dialogue or from options. Devices are flashed in batches,
//! each added to the same FlashJob when the previous one has its results; nothing in flight is
//! replaced.
//!
//! - [`options`] say what to flash, or [`dialogue`] asks for it; [`order`] is the result.
//! - [`remaining`] leaves out the devices that already have a result, and words the question to
//!   confirm.
//! - [`batches`] carries the order out, and [`apply`] changes the FlashJob; [`merge`] decides how
//!   an existing FlashJob changes: results are kept, and nothing is flashed twice unless that is
//!   requested; [`file`] writes the FlashJob to a file. [`dry_run`] shows the FlashJob and applies
//!   nothing.

mod apply;
mod batches;
mod dialogue;
mod dry_run;
mod file;
mod merge;
mod options;
pub mod order;
mod remaining;

use super::{devices, inventory, prompt};
use crate::cluster::{Place, refused};
use crate::failure::Failure;
use crate::interruption::Interruption;
use crate::output::Output;
use crate::report::Report;
use batches::Pacing;
pub use options::Flash;
use order::{Chosen, Firmware};

pub async fn run(
    command: &Flash,
    output: Output,
    interruption: &Interruption,
) -> Result<Report, Failure> {
    interruption.says("nothing was applied");
    if command.is_dialogue() {
        // The questions are on standard output, where a program expects nothing but JSON or YAML.
        if output != Output::Table {
            return Err(Failure::usage(
                "the dialogue has no -o; name devices and --firmware by options instead",
            ));
        }
        return dialogue::run(command, interruption).await;
    }
    let (Some(firmware), Some(version)) = (&command.firmware, &command.version) else {
        return Err(Failure::usage(
            "--firmware and --version are required, and which devices: --type, --application, \
             --node, --uid, --property, --reported-version or --all. Without any of these the \
             command asks for them",
        ));
    };
    // The whole namespace is flashed only if `--all` says so, not because a filter was forgotten.
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
    let order = command.order(&place, &chosen, firmware);
    let remaining_devices = remaining::read(&place, &order).await?;
    chosen.warn_of_current(&remaining_devices.uids, &order.firmware.version);
    let pacing = Pacing {
        batch_size: command.batch_size.unwrap_or(order.targets.len()),
        delay: command.delay.unwrap_or_default(),
        keep_going: command.keep_going,
        timeout: command.timeout,
    };
    if command.dry_run {
        return dry_run::show(&place, order, &pacing, command.file.as_deref()).await;
    }
    // If no device is left, there is nothing to confirm.
    if !remaining_devices.uids.is_empty() {
        prompt::confirm(&remaining_devices.question(&order, pacing.batch_size), command.yes)
            .await?;
    }
    let style = match output {
        Output::Table => batches::ProgressStyle::Options,
        _ => batches::ProgressStyle::Nothing,
    };
    batches::carry_out(&place, order, pacing, command.file.as_deref(), style, interruption).await
}

async fn chosen(command: &Flash, place: &Place) -> Result<Chosen, Failure> {
    // The namespace of the FlashJob: the operator flashes devices of other namespaces only where
    // its configuration allows that.
    let devices = inventory::devices(&place.client, Some(&place.namespace)).await;
    let mut devices = devices.map_err(|error| refused("list Akri's Instances", &error))?;
    // Akri gives a device that missed one scan a new uid, so a list of uids becomes outdated.
    // Flashing only the others would hide that.
    if let Some(uid) = command.filter.unmatched(&devices) {
        return Err(devices::no_such_uid(uid));
    }
    let all = devices.len();
    devices.retain(|device| command.takes(device));
    if devices.is_empty() {
        return Err(devices::nothing(all, Some(&place.namespace)));
    }
    Ok(Chosen {
        devices,
        by_type: command.filter.kind.is_some(),
        by_application: command.filter.application.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use flashjob_api::FlashJob;

    use super::order::{Firmware, Order, Target};

    /// Returns an order of three devices.
    pub fn order() -> Order {
        let target = |uid: &str| Target { uid: uid.to_owned(), ..Target::default() };
        Order {
            name: "hall-3".to_owned(),
            namespace: "fleet".to_owned(),
            targets: ["a", "b", "c"].map(target).to_vec(),
            device: None,
            application: None,
            firmware: Firmware {
                reference: "a:1".to_owned(),
                version: "1".to_owned(),
                pod_image: None,
            },
            parallelism: Some(3),
            run: None,
        }
    }

    /// Returns a paused FlashJob with this version and the first device of the order.
    pub fn paused(version: &str) -> FlashJob {
        let order = order();
        let mut job = order.job(&["a".to_owned()]);
        job.spec.version = version.to_owned();
        job.spec.suspend = Some(true);
        job
    }
}
