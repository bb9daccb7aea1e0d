//! What makes a device one device, whatever uid or job speaks of it. The lock is taken on this.

use std::borrow::Borrow;
use std::fmt;

/// A device's identity: its canonical endpoint; else node and bus path; else namespace and Instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(String);

impl Identity {
    /// A device on the network. `http://`, case, a trailing slash and the default port do not make another device.
    #[must_use]
    pub fn endpoint(endpoint: &str) -> Self {
        Self(format!("endpoint/{}", canonical_endpoint(endpoint)))
    }

    /// A device on a node's bus.
    #[must_use]
    pub fn bus(node: &str, path: &str) -> Self {
        Self(format!("bus/{node}{path}"))
    }

    /// A device of which nothing else is known.
    #[must_use]
    pub fn instance(namespace: &str, name: &str) -> Self {
        let mut text = String::with_capacity(10 + namespace.len() + name.len());
        Self::write_instance(&mut text, namespace, name);
        Self(text)
    }

    /// Writes what [`Self::instance`] is made of into `text`, in place of what is there.
    pub fn write_instance(text: &mut String, namespace: &str, name: &str) {
        text.clear();
        text.extend(["instance/", namespace, "/", name]);
    }

    /// Whether it says how the device is reached: by its endpoint, or on its node's bus.
    #[must_use]
    pub fn is_a_way(&self) -> bool {
        !self.0.starts_with("instance/")
    }

    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let known = ["endpoint/", "bus/", "instance/"].iter().any(|kind| text.starts_with(kind));
        known.then(|| Self(text.to_owned()))
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

/// IP address of the host in an endpoint; `None` for a host name.
#[must_use]
pub fn host_address(endpoint: &str) -> Option<std::net::IpAddr> {
    let canonical = canonical_endpoint(endpoint);
    let (host, _) = canonical.rsplit_once(':')?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// One spelling for one endpoint: no scheme, no path, lower case, the port always there.
fn canonical_endpoint(endpoint: &str) -> String {
    let endpoint = endpoint.trim().to_ascii_lowercase();
    let (rest, port) = match endpoint.strip_prefix("https://") {
        Some(rest) => (rest, "443"),
        None => (endpoint.strip_prefix("http://").unwrap_or(&endpoint), "80"),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (host, given) = split_port(authority);
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let host = host
        .parse::<std::net::IpAddr>()
        .map_or_else(|_| host.to_owned(), |address| address.to_string());
    let port = given
        .and_then(|port| port.parse::<u16>().ok())
        .map_or_else(|| port.to_owned(), |port| port.to_string());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(end) = authority.rfind(']') {
        return (&authority[..=end], authority[end + 1..].strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn one_device_has_one_identity_however_its_endpoint_is_spelled() {
        let expected = Identity::endpoint("10.0.0.7:80");
        for spelling in ["10.0.0.7", "http://10.0.0.7/", "HTTP://10.0.0.7:80", " 10.0.0.7:080 "] {
            assert_eq!(Identity::endpoint(spelling), expected, "{spelling}");
        }
        assert_eq!(Identity::endpoint("ESP.local."), Identity::endpoint("esp.local:80"));
        assert_eq!(Identity::endpoint("[FE80::0:1]:80"), Identity::endpoint("fe80::1"));
        assert_ne!(Identity::endpoint("10.0.0.7:8080"), expected);
    }

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
