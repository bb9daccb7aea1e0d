//! Identity of a device, regardless of the uid or the job that refers to it. Locks are taken on
//! identities.

use std::borrow::Borrow;
use std::fmt;

use super::endpoint::Endpoint;

/// A device's identity: its canonical endpoint; or else node and bus path; or else namespace and
/// name of the Instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(String);

impl Identity {
    /// A device on the network, by its [`Endpoint`], or by the text alone if that cannot be
    /// parsed.
    #[must_use]
    pub fn endpoint(endpoint: &str) -> Self {
        let text = match Endpoint::read(endpoint) {
            Some(endpoint) => endpoint.to_string(),
            // An endpoint that cannot be parsed still locks: the same text is the same device.
            None => endpoint.trim().to_ascii_lowercase(),
        };
        Self(format!("endpoint/{text}"))
    }

    /// A device on a node's bus.
    #[must_use]
    pub(crate) fn bus(node: &str, path: &str) -> Self {
        Self(format!("bus/{node}{path}"))
    }

    /// A device of which only the Instance is known.
    #[must_use]
    pub fn instance(namespace: &str, name: &str) -> Self {
        let mut text = String::with_capacity(10 + namespace.len() + name.len());
        Self::write_instance(&mut text, namespace, name);
        Self(text)
    }

    /// Replaces the contents of `text` with the text of [`Self::instance`].
    pub(crate) fn write_instance(text: &mut String, namespace: &str, name: &str) {
        text.clear();
        text.extend(["instance/", namespace, "/", name]);
    }

    /// Returns true if it tells how to reach the device: by its endpoint, or on its node's bus.
    #[must_use]
    pub(crate) fn is_a_way(&self) -> bool {
        !self.0.starts_with("instance/")
    }

    /// Parses the output of [`fmt::Display`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let has_kind =
            ["endpoint/", "bus/", "instance/"].iter().any(|kind| text.starts_with(kind));
        has_kind.then(|| Self(text.to_owned()))
    }
}

impl Borrow<str> for Identity {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn an_identity_survives_being_written_down() {
        for identity in [
            Identity::endpoint("a:1"),
            Identity::bus("node", "/devices/usb1"),
            Identity::instance("a", "b"),
        ] {
            assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        }
        assert_eq!(Identity::parse("other/x"), None);
    }
}
