//! HTTP server of a device.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use reqwest::Url;
use tokio::net::lookup_host;

use crate::outcome::{AttemptFailure, Code};

/// Timeout of a small request to the device.
const ANSWER: Duration = Duration::from_secs(10);

/// HTTP server of a device.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint(Url);

impl Endpoint {
    /// Parses `host` or `host:port`.
    ///
    /// # Errors
    /// The text is neither.
    pub fn read(text: &str) -> Result<Self, AttemptFailure> {
        read("http", text).map(Self)
    }

    /// Returns the URL of a path on the device, with its query if there is one.
    ///
    /// # Errors
    /// The text is not a path.
    pub fn at(&self, path: &str) -> Result<Url, AttemptFailure> {
        let is_own = |url: &Url| url.authority() == self.0.authority();
        // `//other/x` begins with a slash, too, but names another host (RFC 3986, section 4.2).
        let url = self.0.join(path).ok().filter(|url| path.starts_with('/') && is_own(url));
        url.ok_or_else(|| {
            let message = format!("{path:?} is not a path; expected one such as /update");
            AttemptFailure::new(Code::BadConfiguration, message)
        })
    }

    /// Returns the server's IP addresses.
    pub async fn addresses(&self) -> Vec<IpAddr> {
        let host = self.0.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let addresses = lookup_host((host, self.0.port_or_known_default().unwrap_or(80))).await;
        addresses
            .map(|all| all.map(|address| address.ip().to_canonical()).collect())
            .unwrap_or_default()
    }
}

/// Parses `host` or `host:port`, and returns host and port; the default is `port`.
///
/// # Errors
/// The text is neither.
pub(crate) fn host_and_port(text: &str, port: u16) -> Result<String, AttemptFailure> {
    // Use a scheme without a default port: with "http", an explicit :80 could not be told from no
    // port.
    let url = read("smp", text)?;
    let host = url.host_str().unwrap_or_default();
    Ok(format!("{host}:{}", url.port().unwrap_or(port)))
}

fn read(scheme: &str, text: &str) -> Result<Url, AttemptFailure> {
    // An IPv6 address needs brackets in a URL.
    let host = match text.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => text.to_owned(),
    };
    let is_endpoint = |url: &Url| {
        // A user name in the text could disguise the host: in a@b, the host is b.
        let named = url.host_str().is_some_and(|host| !host.is_empty());
        named && url.path() == "/" && url.query().is_none() && url.username().is_empty()
    };
    Url::parse(&format!("{scheme}://{host}/")).ok().filter(is_endpoint).ok_or_else(|| {
        let message = format!("HOST_ENDPOINT {text:?} is neither a host nor host:port");
        AttemptFailure::new(Code::BadConfiguration, message)
    })
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0.authority())
    }
}

/// Creates the HTTP client for devices, with a timeout for each request.
pub(crate) fn client() -> Result<reqwest::Client, AttemptFailure> {
    // Devices are reached without a proxy, and must not redirect to other hosts.
    let builder = reqwest::Client::builder().timeout(ANSWER).no_proxy();
    let client = builder.redirect(reqwest::redirect::Policy::none()).build();
    client.map_err(|error| {
        AttemptFailure::new(Code::BadConfiguration, "cannot create an HTTP client").because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_with_or_without_a_port_and_an_ipv6_address_needs_no_brackets() {
        for (text, whole) in [
            ("192.0.2.7", Some("192.0.2.7:1337")),
            ("192.0.2.7:80", Some("192.0.2.7:80")),
            ("sensor.example", Some("sensor.example:1337")),
            ("2001:db8::7", Some("[2001:db8::7]:1337")),
            ("[2001:db8::7]:5", Some("[2001:db8::7]:5")),
            ("a/b", None),
            ("a:99999", None),
            ("user@a", None),
            ("", None),
        ] {
            assert_eq!(host_and_port(text, 1337).ok().as_deref(), whole, "{text}");
            assert_eq!(Endpoint::read(text).is_ok(), whole.is_some(), "{text}");
        }
    }
}
