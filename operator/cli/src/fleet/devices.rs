//! `devices`: the devices that Akri found, as the operator sees them.

use clap::Args;
use serde_json::json;

use super::inventory::{self, Device};
use super::table::table;
use crate::cluster::{WideScope, refused};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::report::Report;

/// List devices.
#[derive(Debug, Args)]
pub struct Devices {
    #[command(flatten)]
    filter: Filter,
    /// Only devices that report this version.
    #[arg(long, value_name = "VERSION", help_heading = "Filters")]
    version: Option<String>,
    #[command(flatten)]
    scope: WideScope,
}

/// Filters for devices: a device must match all that are given. Letter case is ignored.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct Filter {
    /// Only devices of this type, as esp32.
    #[arg(long = "type", value_name = "TYPE", value_parser = word)]
    pub kind: Option<String>,
    /// Only devices with this application, as thermo.
    #[arg(long, value_name = "APPLICATION", value_parser = word)]
    pub application: Option<String>,
    /// Only devices that this node sees.
    #[arg(long, value_name = "NODE", value_parser = word)]
    pub node: Option<String>,
    /// Only the device with this uid, or whose uid begins so; repeat it for several.
    #[arg(long, value_name = "UID", value_delimiter = ',', value_parser = word)]
    pub uid: Vec<String>,
    /// Only devices with this property of Akri's; repeat it for several that must all hold.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    pub property: Vec<(String, String)>,
}

/// Parses the value of a filter. An empty value would filter nothing, and is most likely a shell
/// variable that is not set.
pub fn word(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a filter must not be empty".to_owned()),
        word => Ok(word.to_owned()),
    }
}

/// Parses a property of Akri's with its value.
pub fn property(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let owned = parts.map(|(name, value)| (name.to_owned(), value.to_owned()));
    owned.ok_or_else(|| format!("{text:?} is not NAME=VALUE, such as LOCATION=hall-3"))
}

impl Filter {
    /// Returns true if no filter is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kind.is_none()
            && self.application.is_none()
            && self.node.is_none()
            && self.uid.is_empty()
            && self.property.is_empty()
    }

    /// Returns the first uid of the filter that no device has.
    pub fn unmatched<'a>(&'a self, devices: &[Device]) -> Option<&'a String> {
        let has = |prefix: &str, device: &Device| begins(&device.uid, prefix);
        self.uid.iter().find(|prefix| !devices.iter().any(|device| has(prefix, device)))
    }

    /// Returns true for a device that all filters accept.
    #[must_use]
    pub fn takes(&self, device: &Device) -> bool {
        let is = |filter: &Option<String>, value: &Option<String>| {
            filter.as_ref().is_none_or(|filter| {
                value.as_ref().is_some_and(|value| value.eq_ignore_ascii_case(filter.trim()))
            })
        };
        let node = |name: &String| device.nodes.iter().any(|node| node.eq_ignore_ascii_case(name));
        is(&self.kind, &device.kind)
            && is(&self.application, &device.application)
            && self.node.as_ref().is_none_or(node)
            && (self.uid.is_empty() || self.uid.iter().any(|prefix| begins(&device.uid, prefix)))
            && self.property.iter().all(|(name, value)| {
                let property = device.properties.get(name);
                property.is_some_and(|property| property.eq_ignore_ascii_case(value))
            })
    }
}

/// Returns true if a uid begins with `prefix`, in any letter case.
pub fn begins(uid: &str, prefix: &str) -> bool {
    uid.to_ascii_lowercase().starts_with(&prefix.to_ascii_lowercase())
}

/// Returns the failure for a uid that no device has.
pub fn no_such_uid(uid: &str) -> Failure {
    let message = format!("no device has a uid that begins with {uid}");
    Failure::new(Code::Unavailable, "NoDevices", message)
}

pub async fn run(command: &Devices) -> Result<Report, Failure> {
    let (client, namespace) = command.scope.place().await?;
    let listed = inventory::devices(&client, namespace.as_deref()).await;
    let mut devices = listed.map_err(|error| refused("list Akri's Instances", &error))?;
    let all = devices.len();
    if let Some(uid) = command.filter.unmatched(&devices) {
        return Err(no_such_uid(uid));
    }
    let reports = |device: &Device| {
        command.version.as_ref().is_none_or(|version| device.version.as_ref() == Some(version))
    };
    devices.retain(|device| command.filter.takes(device) && reports(device));
    if devices.is_empty() {
        return Err(nothing(all, namespace.as_deref()));
    }
    if let Some(note) = inventory::note_holders(&client, &mut devices).await? {
        tell!("Note: {note}");
    }
    let holders_known = devices.iter().all(|device| device.holder_known);
    let json = json!({"devices": devices, "holdersKnown": holders_known});
    let wide_namespaces = namespace.is_none();
    Ok(Report::new(narrow(&devices, wide_namespaces), json)
        .with(Output::Wide, wide(&devices))
        .with(Output::Name, names(&devices))
        .with(Output::Csv, csv(&devices)?))
}

/// Returns the failure for an empty list of devices, which is likely a mistake.
pub fn nothing(all: usize, namespace: Option<&str>) -> Failure {
    let place =
        namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
    let message = match (all, namespace) {
        (0, Some(_)) => format!(
            "Akri has found no device{place}; kubectl flashjob devices -A searches all \
             namespaces, kubectl flashjob check checks the installation"
        ),
        (0, None) => "Akri has found no device; see kubectl flashjob check".to_owned(),
        (1, _) => format!("the only device{place} does not match all filters"),
        (all, _) => format!("none of the {all} devices{place} matches all filters"),
    };
    Failure::new(Code::Unavailable, "NoDevices", message)
}

fn text(text: &Option<String>) -> String {
    text.clone().unwrap_or_default()
}

fn reachable(device: &Device) -> String {
    match (&device.fault, device.reachable) {
        (Some(fault), _) => format!("no: {fault}"),
        (None, true) => "yes".to_owned(),
        (None, false) => "no".to_owned(),
    }
}

fn holder(device: &Device) -> String {
    match &device.held_by {
        Some(holder) => format!("{}/{} #{}", holder.namespace, holder.job, holder.attempt),
        None if device.holder_known => String::new(),
        None => "?".to_owned(),
    }
}

fn uid(device: &Device) -> String {
    match &device.duplicate_of {
        Some(other) => format!("{} (same device as {other})", device.uid),
        None => device.uid.clone(),
    }
}

/// Returns the cells that all tables of devices have.
fn cells(device: &Device) -> [String; 6] {
    [
        text(&device.kind),
        text(&device.application),
        text(&device.version),
        text(&device.endpoint),
        reachable(device),
        holder(device),
    ]
}

fn narrow(devices: &[Device], with_namespace: bool) -> String {
    let row = |device: &Device| {
        let name = match with_namespace {
            true => format!("{}/{}", device.namespace, device.name),
            false => device.name.clone(),
        };
        let [kind, application, version, endpoint, reachable, holder] = cells(device);
        [uid(device), name, kind, application, version, endpoint, reachable, holder]
    };
    let headings =
        ["UID", "INSTANCE", "TYPE", "APPLICATION", "VERSION", "ENDPOINT", "REACHABLE", "HELD BY"];
    table(headings, devices.iter().map(row))
}

fn wide(devices: &[Device]) -> String {
    let row = |device: &Device| {
        let [kind, application, version, endpoint, reachable, holder] = cells(device);
        let (namespace, name) = (device.namespace.clone(), device.name.clone());
        let nodes = device.nodes.join(",");
        let uid = uid(device);
        [namespace, uid, name, kind, application, version, endpoint, reachable, holder, nodes]
    };
    let headings = [
        "NAMESPACE",
        "UID",
        "INSTANCE",
        "TYPE",
        "APPLICATION",
        "VERSION",
        "ENDPOINT",
        "REACHABLE",
        "HELD BY",
        "NODES",
    ];
    table(headings, devices.iter().map(row))
}

fn names(devices: &[Device]) -> String {
    let names = devices.iter().map(|device| format!("instance.akri.sh/{}", device.name));
    names.collect::<Vec<_>>().join("\n")
}

fn csv(devices: &[Device]) -> Result<String, Failure> {
    super::results::csv(
        &[
            "uid",
            "namespace",
            "instance",
            "type",
            "application",
            "version",
            "endpoint",
            "reachable",
            "heldBy",
            "nodes",
            "duplicateOf",
            "fault",
        ],
        devices.iter().map(|device| {
            vec![
                device.uid.clone(),
                device.namespace.clone(),
                device.name.clone(),
                text(&device.kind),
                text(&device.application),
                text(&device.version),
                text(&device.endpoint),
                device.reachable.to_string(),
                holder(device),
                device.nodes.join(" "),
                text(&device.duplicate_of),
                text(&device.fault),
            ]
        }),
    )
}
