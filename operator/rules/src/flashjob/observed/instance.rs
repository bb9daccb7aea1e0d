//! A device as Akri's Instance describes it, reduced to what decisions and plugins need.

use flashjob_api::GroupKey;
use flashjob_api::akri::{self, property};
use flashjob_types::DeviceType;
use kube_core::ObjectMeta;
use kube_core::ResourceExt;

use super::identity::Identity;
use crate::rollout;

/// An Akri Instance. A hundred thousand of these are cached, so no value is stored twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Namespace of the Instance.
    pub namespace: String,
    /// Name; stays the same when the uid changes.
    pub name: String,
    /// Uid; the value that a FlashJob names.
    pub uid: String,
    /// The nodes that see the device.
    pub nodes: Vec<String>,
    /// Identity of the device; computed once, as it is looked up often.
    pub identity: Identity,
    /// Broker properties, sorted by name.
    pub properties: Properties,
    /// Reason why it cannot be used, as the end of a sentence about it. None: it is usable.
    pub fault: Option<Box<str>>,
}

/// Names and values in one allocation, each terminated by a NUL, which neither may contain, as
/// environment variables cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    text: Box<str>,
    /// Where the trimmed values are that every plan reads of hundreds of devices.
    device_type: Span,
    application_type: Span,
    version: Span,
    endpoint: Span,
}

/// Part of a text, in bytes; empty where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Properties {
    fn new<'a>(properties: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::new();
        for part in properties.flat_map(|(name, value)| [name, value]) {
            text.extend(part.chars().filter(|letter| *letter != '\0'));
            text.push('\0');
        }
        let none = Span::default();
        let mut properties = Self {
            text: text.into(),
            device_type: none,
            application_type: none,
            version: none,
            endpoint: none,
        };
        properties.device_type = properties.find(property::DEVICE);
        properties.application_type = properties.find(property::APPLICATION_TYPE);
        properties.version = properties.find(property::VERSION);
        properties.endpoint = properties.find(property::HOST_ENDPOINT);
        properties
    }

    /// Names with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.text.split_terminator('\0');
        std::iter::from_fn(move || parts.next().zip(parts.next()))
    }

    /// The value of a property, trimmed. None: it is missing or empty.
    fn value(&self, name: &str) -> Option<&str> {
        let entry = self.iter().find(|(key, _)| *key == name);
        entry.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    fn find(&self, name: &str) -> Span {
        let Some(value) = self.value(name) else { return Span::default() };
        let start = value.as_ptr().addr() - self.text.as_ptr().addr();
        match (u32::try_from(start), u32::try_from(start + value.len())) {
            (Ok(start), Ok(end)) => Span { start, end },
            // The API server stores no object of that size.
            _ => Span::default(),
        }
    }

    fn part(&self, span: Span) -> Option<&str> {
        self.text.get(span.start as usize..span.end as usize).filter(|part| !part.is_empty())
    }
}

/// Device type and firmware of an Instance's device, as Akri spells them. Most devices of one
/// fleet have equal traits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Traits<'a> {
    /// `DEVICE`.
    pub device_type: Option<&'a str>,
    /// `APPLICATION_TYPE`.
    pub application_type: Option<&'a str>,
    /// `VERSION`.
    pub version: Option<&'a str>,
}

impl Instance {
    /// Copies the needed fields from the whole object.
    #[must_use]
    pub fn of(instance: &akri::Instance) -> Self {
        let properties = &instance.spec.broker_properties;
        let properties = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let nodes = instance.spec.nodes.clone();
        let mut device = Self::new(
            &instance.namespace().unwrap_or_default(),
            &instance.name_any(),
            &instance.uid().unwrap_or_default(),
            nodes,
            properties,
        );
        // Its device is disappearing, even if a finalizer keeps the object for a long time.
        let leaves = instance.metadata.deletion_timestamp.is_some();
        device.fault = leaves.then(|| "is being deleted".into());
        device
    }

    /// Creates an Instance for an object that cannot be decoded.
    #[must_use]
    pub fn unreadable(metadata: &ObjectMeta, error: &str) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut device =
            Self::new(&namespace, &name, &text(&metadata.uid), Vec::new(), std::iter::empty());
        device.fault = Some(format!("cannot be decoded: {error}").into());
        device
    }

    /// Creates a device.
    #[must_use]
    pub fn new<'a>(
        namespace: &str,
        name: &str,
        uid: &str,
        nodes: Vec<String>,
        properties: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut instance = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            nodes,
            identity: Identity::instance(namespace, name),
            properties: Properties::new(properties),
            fault: None,
        };
        instance.identity =
            match (instance.endpoint(), instance.bus_path(), instance.nodes.first()) {
                (Some(endpoint), _, _) => Identity::endpoint(endpoint),
                // A path is unique on its node only: two nodes can have a device each at the same
                // path.
                (None, Some(path), Some(node)) => Identity::bus(node, path),
                _ => instance.identity,
            };
        instance
    }

    /// The value of a property, trimmed. None: it is missing or empty.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.value(name)
    }

    /// Traits that guards compare.
    #[must_use]
    pub fn traits(&self) -> Traits<'_> {
        let Properties { device_type, application_type, version, .. } = self.properties;
        let part = |span| self.properties.part(span);
        Traits {
            device_type: part(device_type),
            application_type: part(application_type),
            version: part(version),
        }
    }

    /// `host:port`, as Akri reports it.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.properties.part(self.properties.endpoint)
    }

    /// The device type, where Akri reports one.
    #[must_use]
    pub fn device_type(&self) -> Option<DeviceType> {
        self.traits().device_type.and_then(|text| text.parse().ok())
    }

    /// The application type, where Akri reports one.
    #[must_use]
    pub fn application_type(&self) -> Option<&str> {
        self.traits().application_type
    }

    /// The version that the device reports.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.traits().version
    }

    /// The groups that the device belongs to; empty where it lacks the property.
    #[must_use]
    pub fn groups(&self, key: &GroupKey) -> Vec<&str> {
        match key {
            GroupKey::Node => self.nodes.iter().map(String::as_str).collect(),
            GroupKey::Property(name) => self.property(name).into_iter().collect(),
        }
    }

    /// Path of the device on its node's bus. Where udev's handler groups several devices into one,
    /// whose properties are then numbered, it is the alphabetically first path: the numbers may
    /// change.
    #[must_use]
    pub(crate) fn bus_path(&self) -> Option<&str> {
        let is_numbered = |name: &str| {
            let number = name.strip_prefix(property::UDEV_DEVPATH)?.strip_prefix('_')?;
            number.parse::<u32>().ok()
        };
        self.property(property::UDEV_DEVPATH).or_else(|| {
            let numbered = self.properties.iter().filter(|(name, _)| is_numbered(name).is_some());
            numbered.map(|(_, path)| path.trim()).filter(|path| !path.is_empty()).min()
        })
    }

    /// Returns true if the Instance has no fault, and a node and a way to reach the device are
    /// known.
    #[must_use]
    pub fn reachable(&self, endpoint: Option<&str>) -> bool {
        self.fault.is_none() && self.has_a_way(endpoint)
    }

    /// Returns true if a node and a way to reach the device are known, also if the Instance is
    /// being deleted.
    #[must_use]
    pub(crate) fn has_a_way(&self, endpoint: Option<&str>) -> bool {
        // Akri keeps an Instance without nodes for a device that no node sees.
        !self.nodes.is_empty() && (endpoint.is_some() || self.identity.is_a_way())
    }

    /// All identities that must be locked to flash this device: its own, the overriding endpoint,
    /// and the Instance itself, so that a device whose endpoint changes while it is flashed stays
    /// locked.
    #[must_use]
    pub fn identities(&self, endpoint: Option<&str>) -> Vec<Identity> {
        let overriding = endpoint.map(Identity::endpoint);
        let mut identities =
            vec![self.identity.clone(), Identity::instance(&self.namespace, &self.name)];
        identities.extend(overriding);
        identities.sort();
        identities.dedup();
        identities
    }
}

impl rollout::Properties for Instance {
    fn value(&self, name: &str) -> Option<&str> {
        self.property(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_as_they_were_but_for_nul() {
        let entries = [("A", ""), ("", "b"), ("C", "d\0e")];
        let properties = Properties::new(entries.into_iter());
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("A", ""), ("", "b"), ("C", "de")]);
    }

    #[test]
    fn a_device_on_a_bus_is_reachable_and_told_apart_by_node_and_path() {
        let on = |nodes: &[&str]| {
            let properties =
                [("UDEV_DEVNODE", "/dev/ttyUSB0"), ("UDEV_DEVPATH", "/devices/usb1/ttyUSB0")]
                    .into_iter();
            Instance::new(
                "fleet",
                "akri-serial-a1b2c3",
                "uid",
                nodes.iter().map(|node| (*node).to_owned()).collect(),
                properties,
            )
        };
        assert!(on(&["a"]).reachable(None));
        assert_eq!(on(&["a"]).identity, Identity::bus("a", "/devices/usb1/ttyUSB0"));
        assert_ne!(on(&["a"]).identity, on(&["b"]).identity);
        assert!(!on(&[]).reachable(None));
        assert_eq!((on(&["a"]).device_type(), on(&["a"]).endpoint()), (None, None));
    }

    #[test]
    fn a_device_of_several_parts_on_a_bus_is_one_device_however_they_are_numbered() {
        let grouped = |properties: [(&str, &str); 3]| {
            Instance::new("fleet", "a", "uid", vec!["n".into()], properties.into_iter())
        };
        let (first, second) = ("/devices/usb3/3-1:1.0", "/devices/usb3/3-1:1.2");
        let one = grouped([
            ("UDEV_DEVPATH_0", first),
            ("UDEV_DEVPATH_1", second),
            ("UDEV_DEVPATH_X", "/a"),
        ]);
        let other = grouped([
            ("UDEV_DEVPATH_3", second),
            ("UDEV_DEVPATH_7", first),
            ("UDEV_DEVNODE_7", "/dev/a"),
        ]);
        assert_eq!(one.identity, Identity::bus("n", first));
        assert_eq!(one.identity, other.identity);
        assert!(one.reachable(None));
    }

    #[test]
    fn an_instance_that_is_being_deleted_or_cannot_be_decoded_reaches_nothing() {
        let object = serde_json::json!({
            "metadata": {
                "name": "a", "namespace": "fleet", "uid": "u",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"nodes": ["n"], "brokerProperties": {"HOST_ENDPOINT": "10.0.0.1:80"}},
        });
        let mut object: akri::Instance = serde_json::from_value(object).expect("an Instance");
        assert!(!Instance::of(&object).reachable(None));
        object.metadata.deletion_timestamp = None;
        assert!(Instance::of(&object).reachable(None));
        let unreadable = Instance::unreadable(&object.metadata, "nodes: expected a list");
        assert!(!unreadable.reachable(Some("10.0.0.1")));
        assert!(unreadable.fault.is_some_and(|fault| fault.contains("expected a list")));
    }
}
