//! Proxy to the API server, from environment variables. Without I/O.
//!
//! Which servers need no proxy is decided as in kubectl, except that in `NO_PROXY` blanks separate
//! entries too.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// Forms of the URL of a proxy, for messages.
pub const EXPECTED: &str =
    "http://host:port, https://host:port, or socks5://host:port without user name and password";

/// Port of a SOCKS5 proxy whose URL has none (RFC 1928, section 3).
const SOCKS_PORT: u16 = 1080;

/// Returns the proxy that the environment names for an API server; none if it needs none.
///
/// # Errors
/// A variable does not name a proxy. The message does not repeat its value, which may contain a
/// password.
pub fn of_environment(
    server: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, String> {
    let first = |names: [&'static str; 2]| {
        let named = |name: &'static str| Some((name, variable(name)?));
        names.into_iter().filter_map(named).find(|(_, value)| !value.trim().is_empty())
    };
    // Go, and so kubectl, does not read `ALL_PROXY`.
    let names = match server.scheme_str() {
        Some("http") => ["HTTP_PROXY", "http_proxy"],
        _ => ["HTTPS_PROXY", "https_proxy"],
    };
    let Some((name, url)) = first(names) else { return Ok(None) };
    let exempt = first(["NO_PROXY", "no_proxy"]).map_or_else(String::new, |(_, list)| list);
    if needs_no_proxy(server, &exempt) {
        return Ok(None);
    }
    parse(&url).map(Some).ok_or_else(|| {
        format!(
            "{name} in the environment does not name a valid proxy; set it to {EXPECTED}, or add \
             the host of the API server to NO_PROXY"
        )
    })
}

/// Parses the URL of a proxy. Without a scheme it is that of an HTTP proxy, as in curl and Go.
pub fn parse(text: &str) -> Option<Uri> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url: Uri = whole.parse().ok()?;
    let host = url.host().filter(|host| !host.is_empty())?;
    // The case of a scheme does not matter (RFC 3986, section 3.1), but `Uri` keeps it in those
    // that it does not know.
    match url.scheme_str()?.to_ascii_lowercase().as_str() {
        // kube's client sends a SOCKS5 proxy neither a user name nor a password, and takes it to
        // be at port 80 if the URL has no port. The proxy resolves names with either scheme.
        "socks5" | "socks5h" if !whole.contains('@') => {
            let port = url.port_u16().unwrap_or(SOCKS_PORT);
            format!("socks5://{host}:{port}").parse().ok()
        }
        "http" | "https" => Some(url),
        _ => None,
    }
}

/// Returns the URL of a proxy without user name and password, for messages.
pub fn without_credentials(proxy: &Uri) -> String {
    let scheme = proxy.scheme_str().unwrap_or("http");
    let port = proxy.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{}{port}", proxy.host().unwrap_or_default())
}

/// Returns true if the server is on this machine, or `NO_PROXY` lists it.
fn needs_no_proxy(server: &Uri, exempt: &str) -> bool {
    let Some(host) = server.host() else { return true };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|one| one.is_loopback()) {
        return true;
    }
    let default_port = if server.scheme_str() == Some("http") { 80 } else { 443 };
    let hosts = hosts(exempt, host, server.port_u16().unwrap_or(default_port));
    // This proxy only stands for some proxy: the matcher would remove the password of a real one.
    Matcher::builder().all("http://proxy").no(hosts).build().intercept(server).is_none()
}

/// Returns the hosts of `NO_PROXY` that are exempt at the server's port, in the form that the
/// matcher reads.
fn hosts(exempt: &str, server: &str, port: u16) -> String {
    let entries = exempt.split(|letter: char| letter == ',' || letter.is_whitespace());
    let hosts = entries.filter_map(|entry| {
        if entry == "*" {
            // The matcher compares `*` with names only.
            return Some("*,0.0.0.0/0,::/0");
        }
        let host = match entry.rsplit_once(':') {
            // An IPv6 address before a port is in brackets.
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                (digits.parse::<u16>() == Ok(port)).then_some(host)?
            }
            _ => entry,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // `*.example.com` and `.example.com` are two spellings of the same hosts.
        let domain = host.strip_prefix('*').filter(|domain| domain.starts_with('.'));
        let host = domain.unwrap_or(host);
        // In Go, `.example.com` stands for the hosts below example.com; in the matcher, and in
        // curl, for example.com too.
        let is_itself =
            host.strip_prefix('.').is_some_and(|domain| domain.eq_ignore_ascii_case(server));
        (!is_itself).then_some(host)
    });
    hosts.filter(|host| !host.is_empty()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://proxy.example:3128";

    /// Returns the proxy for a server in an environment with these variables.
    fn proxy(server: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let server: Uri = server.parse().expect("a URL");
        let value = |name: &str| {
            let variable = variables.iter().find(|(variable, _)| *variable == name);
            variable.map(|(_, value)| (*value).to_owned())
        };
        of_environment(&server, value).map(|proxy| proxy.map(|proxy| proxy.to_string()))
    }

    fn is_proxied(server: &str, exempt: &str) -> bool {
        let proxy = proxy(server, &[("HTTPS_PROXY", PROXY), ("NO_PROXY", exempt)]);
        proxy.expect("a valid proxy").is_some()
    }

    #[test]
    fn no_proxy_is_compared_with_the_api_server_and_not_with_the_proxy() {
        for (server, exempt) in [
            ("https://192.168.3.4:6443", "192.168.3.4"),
            ("https://192.168.3.4:6443", "192.168.3.4:6443"),
            ("https://192.168.3.4:6443", "192.168.0.0/16,"),
            ("https://192.168.3.4:6443", " localhost , 192.168.0.0/16 ,,"),
            ("https://192.168.3.4:6443", "localhost 192.168.3.4"),
            ("https://192.168.3.4:6443", "*"),
            ("https://api.fleet.example", "API.fleet.example:443"),
            ("https://api.fleet.example", "fleet.example"),
            ("https://api.fleet.example", ".fleet.example"),
            ("https://api.fleet.example", "*.fleet.example"),
            ("https://fleet.example", ".fleet.example,Fleet.example"),
            ("https://[fd00::7]:6443", "fd00::7"),
            ("https://[fd00::7]:6443", "[fd00::7]:6443"),
            ("https://[fd00::7]:6443", "fd00::/8"),
        ] {
            assert!(!is_proxied(server, exempt), "{server} {exempt:?}");
        }
        for (server, exempt) in [
            ("https://192.168.3.4:6443", ""),
            ("https://192.168.3.4:6443", " , "),
            ("https://192.168.3.4:6443", "proxy.example"),
            ("https://192.168.3.4:6443", "10.0.0.0/8"),
            ("https://192.168.3.4:6443", "192.168.3.4:443"),
            ("https://api.fleet.example", "et.example"),
            ("https://fleet.example", ".fleet.example"),
            ("https://fleet.example", "*.Fleet.example:443"),
            ("https://[fd00::7]:6443", "fd00::8"),
        ] {
            assert!(is_proxied(server, exempt), "{server} {exempt:?}");
        }
    }

    #[test]
    fn an_api_server_on_this_machine_needs_no_proxy() {
        for server in ["https://127.0.0.1:6443", "https://localhost:6443", "https://[::1]:6443"] {
            assert!(!is_proxied(server, ""), "{server}");
        }
    }

    #[test]
    fn the_first_variable_with_a_value_for_the_scheme_of_the_api_server_names_the_proxy() {
        let named = |server, variables: &[(&str, &str)]| proxy(server, variables).ok().flatten();
        let expected = Some(format!("{PROXY}/"));
        let variables =
            [("HTTPS_PROXY", " "), ("https_proxy", PROXY), ("HTTP_PROXY", "http://other:1")];
        assert_eq!(named("https://10.1.2.3:6443", &variables), expected);
        assert_eq!(named("http://10.1.2.3", &[("HTTP_PROXY", PROXY)]), expected);
        assert_eq!(named("https://10.1.2.3:6443", &[("HTTP_PROXY", PROXY)]), None);
        assert_eq!(named("https://10.1.2.3:6443", &[("ALL_PROXY", PROXY)]), None);
        let without_scheme = [("HTTPS_PROXY", " proxy.example:3128\n")];
        assert_eq!(named("https://10.1.2.3:6443", &without_scheme), expected);
    }

    #[test]
    fn a_proxy_is_named_without_its_password_and_one_of_socks5_has_none() {
        for (url, expected) in [
            ("http://u:secret-word@proxy.example:3128/", Some("http://proxy.example:3128")),
            ("https://u@[fd00::7]", Some("https://[fd00::7]")),
            ("socks5://proxy.example:9050", Some("socks5://proxy.example:9050")),
            ("socks5h://[fd00::7]", Some("socks5://[fd00::7]:1080")),
            ("SOCKS5://proxy.example:9050", Some("socks5://proxy.example:9050")),
            ("HTTP://proxy.example:3128", Some("http://proxy.example:3128")),
            ("socks5://u:secret-word@proxy.example:1080", None),
            ("socks4://proxy.example:1080", None),
        ] {
            let named = parse(url).map(|proxy| without_credentials(&proxy));
            assert_eq!(named.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_told_by_its_variable_and_not_by_its_password() {
        for url in ["http://u:secret-word@exa mple:80", "socks5://u:secret-word@a:1080", "http://"]
        {
            let of = |exempt| {
                proxy("https://10.1.2.3:6443", &[("https_proxy", url), ("NO_PROXY", exempt)])
            };
            let error = of("").expect_err(url);
            assert!(error.starts_with("https_proxy in the environment does not"), "{error}");
            assert!(!error.contains("secret-word"), "{error}");
            assert_eq!(of("10.1.2.3"), Ok(None), "a proxy that is not needed need not be valid");
        }
    }
}
