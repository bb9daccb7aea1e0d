//! Endpoint of a device on the network, in canonical spelling, and the spellings that a FlashJob
//! may use. Pure.
//!
//! Programs do not agree on the meaning of `010.9.0.2`, `10.9.2` or `0xa090002`, and many take
//! them for an address. Where a device is locked, they are therefore parsed as those programs
//! parse them; in a FlashJob they are rejected.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flashjob_api::is_visible;
use url::Host;

/// Host and port of a device; `http://`, case, a path, a trailing dot and the default port make no
/// difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: Host<String>,
    port: u16,
}

/// The parts of an endpoint as written, in lower case.
struct Parts<'a> {
    user: bool,
    path: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    default_port: u16,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (rest, default_port) = match text.strip_prefix("https://") {
            Some(rest) => (rest, 443),
            None => (text.strip_prefix("http://").unwrap_or(text), 80),
        };
        // The WHATWG URL Standard, by which many programs parse, ends the host of an http URL at a
        // backslash too.
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, authority) =
            // Only the last @ separates the user: by the first one, a user name could pose as the
            // host.
            authority.rsplit_once('@').map_or((false, authority), |(_, host)| (true, host));
        let (host, port) = split_port(authority);
        Self { user, path, host, port, default_port }
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(end) = authority.rfind(']') {
        return (&authority[..=end], authority[end + 1..].strip_prefix(':'));
    }
    match authority.split_once(':') {
        // With more than one colon it is an IPv6 address without brackets, and has no port.
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

impl Endpoint {
    /// Parses an endpoint as most programs do. None: it cannot be parsed.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let parts = Parts::of(&text);
        let port = match parts.port {
            None | Some("") => parts.default_port,
            Some(port) => port.parse().ok()?,
        };
        // `Host::parse` reads numbers as inet_aton does, such as 010.9.0.2 and 0xa090002. A
        // trailing dot marks an absolute name (RFC 1034, section 3.1) of the same host.
        let host = match parts.host.parse::<Ipv6Addr>() {
            Ok(address) => Host::Ipv6(address),
            Err(_) => Host::parse(parts.host.trim_end_matches('.')).ok()?,
        };
        let host = match host {
            // An IPv4-mapped IPv6 address.
            Host::Ipv6(address) => match address.to_canonical() {
                IpAddr::V4(address) => Host::Ipv4(address),
                IpAddr::V6(address) => Host::Ipv6(address),
            },
            host => host,
        };
        Some(Self { host, port })
    }

    /// Parses the endpoint that a FlashJob sets instead of the one from Akri. `akri_endpoint` is
    /// the endpoint from Akri for the same device; a host name may resolve to any device, so it is
    /// accepted only if `akri_endpoint` has it, or `names` lists it (`*.example.com`: all names
    /// below it).
    ///
    /// # Errors
    /// Description of the error and of the expected value.
    pub fn overriding(
        text: &str,
        akri_endpoint: Option<&str>,
        names: &[String],
    ) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let parts = Parts::of(&lower);
        let expected = "expected host:port, with an address such as 10.0.0.7 or [fd00::7]";
        if parts.user {
            return Err(format!("it contains a user name; {expected}"));
        }
        if !matches!(parts.path, "" | "/") {
            return Err(format!("it has a path; {expected}"));
        }
        let odd = |letter: char| !is_visible(letter) || letter == '%';
        if lower.contains(odd) {
            return Err(format!(
                "it contains characters that programs interpret differently; {expected}"
            ));
        }
        let endpoint = Self::read(text).filter(|endpoint| endpoint.port > 0);
        let endpoint =
            endpoint.ok_or_else(|| format!("it is not a valid endpoint; {expected}"))?;
        let name = match &endpoint.host {
            Host::Ipv4(_)
                if parts.host.parse::<Ipv4Addr>().is_err() && !parts.host.contains(':') =>
            {
                return Err(format!(
                    "programs interpret {} as the address {}; write that address",
                    parts.host, endpoint.host
                ));
            }
            Host::Ipv4(_) | Host::Ipv6(_) => return Ok(endpoint),
            Host::Domain(name) => name,
        };
        let is_own =
            akri_endpoint.and_then(Self::read).is_some_and(|akri| akri.host == endpoint.host);
        let is_listed = names.iter().any(|listed| match listed.strip_prefix("*.") {
            Some(domain) => name.strip_suffix(domain).is_some_and(|begin| begin.ends_with('.')),
            None => listed.eq_ignore_ascii_case(name),
        });
        if is_own || is_listed {
            return Ok(endpoint);
        }
        Err(format!(
            "the host name {name} may resolve to any device; write the device's IP address, or \
             add the name to instances.hostNames in the operator's configuration"
        ))
    }

    /// The IP address, if the host is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<String> {
        Endpoint::read(text).map(|endpoint| endpoint.to_string())
    }

    #[test]
    fn one_device_has_one_endpoint_however_it_is_spelled() {
        for text in ["10.0.0.7", "http://10.0.0.7/", "HTTP://10.0.0.7:80", " 10.0.0.7:080 "] {
            assert_eq!(read(text).as_deref(), Some("10.0.0.7:80"), "{text}");
        }
        assert_eq!(read("ESP.local."), read("esp.local:80"));
        assert_eq!(read("[FE80::0:1]:80"), read("fe80::1"));
        assert_eq!(read("https://a/x?y"), Some("a:443".to_owned()));
        assert_ne!(read("10.0.0.7:8080"), read("10.0.0.7"));
        assert_eq!(read("10.0.0.7:x"), None);
    }

    #[test]
    fn a_person_writes_addresses_plainly() {
        for text in ["10.9.0.2", "10.9.0.2:80", "http://10.9.0.2:80/", "[fd00::7]:8080", "fd00::7"]
        {
            assert!(Endpoint::overriding(text, None, &[]).is_ok(), "{text}");
        }
        for text in [
            "168361986:80",
            "0x0a090002",
            "010.9.0.2",
            "10.9.2:80",
            "10.9.0.2.",
            "0xa.9.0.2",
            "http://x@10.9.0.2:80",
            "x:y@10.9.0.2",
            "10.9.0.2%2e:80",
            "10.9.0.2\\\\x",
            "10.9.0.2\u{200b}",
            "10.9.0.2:0",
            "10.9.0.2:99999",
            "[fe80::1%25eth0]:80",
            "esp.local",
            "ftp://10.9.0.2",
            "10.9.0.2/ota",
            "10.9.0.2?a",
            "",
        ] {
            assert!(Endpoint::overriding(text, None, &[]).is_err(), "{text}");
        }
        // Treated by locks and guards as the address that it maps to.
        let mapped = Endpoint::overriding("[::ffff:10.9.0.2]:80", None, &[]).expect("unmapped");
        assert_eq!(mapped.to_string(), "10.9.0.2:80");
    }

    #[test]
    fn a_host_name_is_the_device_s_own_or_listed() {
        let names = ["*.devices.example.com".to_owned(), "lab".to_owned()];
        for (text, akri_endpoint) in [
            ("Esp-1.local:80", Some("http://esp-1.local.")),
            ("a.devices.example.com", None),
            ("b.a.devices.example.com:8080", None),
            ("LAB", None),
        ] {
            assert!(Endpoint::overriding(text, akri_endpoint, &names).is_ok(), "{text}");
        }
        for text in ["esp-2.local", "devices.example.com", "evildevices.example.com", "lab2"] {
            assert!(Endpoint::overriding(text, Some("esp-1.local"), &names).is_err(), "{text}");
        }
    }

    /// Spellings of an address that some program accepts.
    fn spellings(address: Ipv4Addr) -> Vec<String> {
        let [a, b, c, d] = address.octets();
        let number = u32::from(address);
        let low = number & 0xffff;
        vec![
            address.to_string(),
            format!("{number}"),
            format!("{number:#x}"),
            format!("0{number:o}"),
            format!("{a}.{b}.{low}"),
            format!("{a}.{}", number & 0xff_ffff),
            format!("{a:#x}.0{b:o}.{c}.{d:#X}"),
            format!("{address}."),
            format!("[::ffff:{address}]"),
            format!("::FFFF:{address}"),
            format!("[0:0:0:0:0:ffff:{:x}:{low:x}]", number >> 16),
        ]
    }

    proptest! {
        #[test]
        fn no_spelling_of_one_address_gives_two_endpoints(
            number: u32,
            port in 1_u16..,
            scheme in 0_usize..3,
        ) {
            let address = Ipv4Addr::from(number);
            let scheme = ["", "http://", "HTTPS://"][scheme];
            for host in spellings(address) {
                // An IPv6 address without brackets cannot be followed by a port.
                let bare = host.starts_with("::");
                let host = if bare { format!("[{host}]") } else { host };
                let text = format!("{host}:{port}");
                let endpoint = read(&format!("{scheme}{text}/"));
                prop_assert_eq!(endpoint, Some(format!("{address}:{port}")), "{}", host);
            }
        }

        #[test]
        fn what_a_person_may_write_leads_where_it_reads(text in "[0-9a-fxX.:\\[\\]@%/ -]{0,24}") {
            if let Ok(endpoint) = Endpoint::overriding(&text, None, &[]) {
                prop_assert_eq!(Endpoint::read(&text), Some(endpoint.clone()));
                prop_assert!(endpoint.address().is_some());
            }
        }
    }
}
