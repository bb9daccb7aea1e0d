//! Dialogue of `flash`: word for word that of the script filter_uuid.py, so that people and
//! programs that know the script need not learn another.

use std::time::Duration;

use serde_json::json;

use super::batches::{self, Pacing, ProgressStyle};
use super::options::Flash;
use super::order::{self, Chosen, Firmware};
use super::{dry_run, remaining};
use crate::cause::root;
use crate::duration;
use crate::failure::{Code, Failure};
use crate::fleet::devices::{self, Filter};
use crate::fleet::inventory::{self, Device};
use crate::fleet::prompt::{Prompt, yes_or_no};
use crate::interruption::Interruption;
use crate::report::{Report, print, write};

/// Number of devices in a batch, unless another one is given.
const BATCH: usize = 5;
/// Seconds between batches, unless another number is given.
const DELAY: u64 = 60;
/// Version that the script wrote into every file.
const VERSION: &str = "0.2.0";

pub(super) async fn run(command: &Flash, interruption: &Interruption) -> Result<Report, Failure> {
    let place = match command.scope.place().await {
        Ok(place) => place,
        Err(failure) => return Err(not_retrieved(&failure.message.clone(), failure)?),
    };
    let mut prompt = Prompt::new("nothing was applied");
    let filter = Filter {
        kind: optional(&mut prompt, "device type").await?,
        application: optional(&mut prompt, "application type").await?,
        uid: optional(&mut prompt, "UUID").await?.into_iter().collect(),
        ..Filter::default()
    };
    let devices = match inventory::devices(&place.client, Some(&place.namespace)).await {
        Ok(devices) => devices,
        Err(error) => {
            let failure = crate::cluster::refused("list Akri's Instances", &error);
            return Err(not_retrieved(&words(&error), failure)?);
        }
    };
    if let Some(uid) = command.filter.unmatched(&devices) {
        return Err(devices::no_such_uid(uid));
    }
    let takes = |device: &Device| command.takes(device) && filter.takes(device);
    let devices: Vec<Device> = devices.into_iter().filter(takes).collect();
    if devices.is_empty() {
        // Success and the two lines of the script, for programs that know the script.
        print("No instances found matching the criteria.\nNo matching instances found.")?;
        return Ok(Report::new(String::new(), json!({"devices": []})));
    }
    if !command.filter.is_empty() || command.reported_version.is_some() {
        print("Only instances that the options name are listed.")?;
    }
    let filters = [&command.filter, &filter];
    let chosen = Chosen {
        devices: select(&mut prompt, devices).await?,
        by_type: filters.iter().any(|filter| filter.kind.is_some()),
        by_application: filters.iter().any(|filter| filter.application.is_some()),
    };
    let (firmware, size) = firmware(&mut prompt, command).await?;
    let order = command.order(&place, &chosen, firmware);
    // Checked while there are questions left, so that the user can still stop.
    let remaining_devices = remaining::read(&place, &order).await?;
    chosen.warn_of_current(&remaining_devices.uids, &order.firmware.version);
    let batch_size = match (size, command.batch_size) {
        (Some(size), _) => size,
        (None, batch_size) => {
            let default = batch_size.unwrap_or(BATCH);
            let question = format!("Enter the number of UUIDs per batch (default is {default}): ");
            prompt.ask_until(&question, |text| or(text, default, order::batch_size)).await?
        }
    };
    let default = command.delay.map_or(DELAY, |delay| delay.as_secs());
    let question = format!("Enter the delay between batches in seconds (default is {default}): ");
    let delay = prompt.ask_until(&question, |text| or(text, default, seconds)).await?;
    let pacing = Pacing {
        batch_size,
        delay: Duration::from_secs(delay),
        keep_going: command.keep_going,
        timeout: command.timeout,
    };
    if command.dry_run {
        // Answers from a pipe do not end the line, so the output starts a new one.
        if !Prompt::is_terminal() {
            write("\n")?;
        }
        return dry_run::show(&place, order, &pacing, command.file.as_deref()).await;
    }
    batches::carry_out(
        &place,
        order,
        pacing,
        command.file.as_deref(),
        ProgressStyle::Dialogue,
        interruption,
    )
    .await
}

/// Prints that there are no devices to choose from; the returned failure says what to do.
fn not_retrieved(words: &str, failure: Failure) -> Result<Failure, Failure> {
    print(&format!(
        "Error accessing Kubernetes API: {words}\nFailed to retrieve Akri instances."
    ))?;
    // The exit code of the script is 1.
    Ok(Failure { code: Code::Other, ..failure })
}

fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        _ => root(error),
    }
}

async fn optional(prompt: &mut Prompt, what: &str) -> Result<Option<String>, Failure> {
    let answer = prompt.ask(&format!("Enter {what} to filter (or press Enter to skip): ")).await?;
    Ok(Some(answer).filter(|answer| !answer.is_empty()))
}

/// Parses an answer; an empty one means the default.
fn or<T>(text: &str, default: T, read: fn(&str) -> Result<T, String>) -> Result<T, String> {
    if text.is_empty() { Ok(default) } else { read(text) }
}

fn seconds(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is not a number of seconds."));
    }
    duration::parse(text).map(|time| time.as_secs())
}

async fn select(prompt: &mut Prompt, devices: Vec<Device>) -> Result<Vec<Device>, Failure> {
    let mut list = vec![String::new(), "Available Akri Instances:".to_owned()];
    for (number, device) in devices.iter().enumerate() {
        list.push(format!(
            "[{number}] UUID: {}, Device Type: {}, Application Type: {}",
            device.uid,
            device.kind.as_deref().unwrap_or("Unknown Device Type"),
            device.application.as_deref().unwrap_or("Unknown Application Type")
        ));
    }
    print(&list.join("\n"))?;
    let question = "\nDo you want to select all UUIDs? (y/n): ";
    if prompt.ask_until(question, yes_or_no).await? {
        return Ok(devices);
    }
    let question = "\nEnter the numbers of the UUIDs you want to include (comma-separated): ";
    let numbers = prompt.ask_until(question, |text| numbers(text, devices.len())).await?;
    Ok(numbers.into_iter().map(|number| devices[number].clone()).collect())
}

/// Parses numbers of the list, each once, in the order of the answer.
fn numbers(text: &str, count: usize) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number = part.parse().ok().filter(|number| *number < count);
        // A number that is dropped silently is a device that is not flashed.
        let number = number.ok_or_else(|| {
            format!("{part:?} is not a number from 0 to {}; nothing was selected.", count - 1)
        })?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    if numbers.is_empty() {
        return Err("Please enter at least one number.".to_owned());
    }
    Ok(numbers)
}

/// Asks for the firmware to flash. A number in place of the image is the batch size: before the
/// question for the image was added, that was the next question.
async fn firmware(
    prompt: &mut Prompt,
    command: &Flash,
) -> Result<(Firmware, Option<usize>), Failure> {
    let reference = match command.firmware.clone() {
        None => prompt.ask_until("Enter the firmware to use: ", order::word).await?,
        Some(default) => {
            let question = format!("Enter the firmware to use [{default}]: ");
            prompt.ask_until(&question, |text| or(text, default.clone(), order::word)).await?
        }
    };
    let default = command.pod_image.clone();
    let default_image = default.as_deref().unwrap_or("the plugin's default");
    let question = format!("Enter the flashjobPodImage to use [{default_image}]: ");
    let is_number =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = |text: &str| match text {
        "" => Ok((default.clone(), None)),
        number if is_number(number) => {
            order::batch_size(number).map(|size| (default.clone(), Some(size)))
        }
        image => order::image(image).map(|image| (Some(image), None)),
    };
    let (pod_image, size) = prompt.ask_until(&question, read).await?;
    let mut version = command.version.clone().unwrap_or_else(|| VERSION.to_owned());
    // The script asked no such question, so piped answers have no line for it.
    if Prompt::is_terminal() {
        let question =
            format!("Enter the version that the devices report afterwards [{version}]: ");
        let read = |text: &str| or(text, version.clone(), order::word);
        version = prompt.ask_until(&question, read).await?;
    }
    Ok((Firmware { reference, version, pod_image }, size))
}

#[cfg(test)]
mod tests {
    use super::{numbers, seconds};

    #[test]
    fn a_delay_is_a_number_of_seconds_that_ends() {
        assert_eq!(seconds("60"), Ok(60));
        for wrong in ["", "1m", "-1", "18446744073709551615"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_taken_once_each_and_none_is_dropped() {
        assert_eq!(numbers("0, 2,0,", 3), Ok(vec![0, 2]));
        for wrong in ["", ",", "3", "0,3", "-1", "a", "0;1"] {
            assert!(numbers(wrong, 3).is_err(), "{wrong}");
        }
    }
}
