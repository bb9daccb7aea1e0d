//! Proxies to registries, from environment variables.
//!
//! The HTTP client reads the same variables itself, but ignores a proxy with blanks around it, and
//! does not separate hosts at blanks as curl does.

use reqwest::{NoProxy, Proxy};

/// Returns the proxies that the variables name; none leaves the choice to the HTTP client, which
/// also knows the settings of desktop systems.
///
/// # Errors
/// A variable does not name a proxy. The message does not repeat its value, which may contain a
/// password.
pub(super) fn proxies(variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Proxy>, String> {
    let first = |names: [&'static str; 2]| {
        let (name, text) = names.into_iter().find_map(|name| Some((name, variable(name)?)))?;
        let text = text.trim();
        (!text.is_empty()).then(|| (name, text.to_owned()))
    };
    let direct = first(["NO_PROXY", "no_proxy"])
        .and_then(|(_, list)| NoProxy::from_string(&separated_by_commas(&list)));
    let any = first(["ALL_PROXY", "all_proxy"]);
    let https = first(["HTTPS_PROXY", "https_proxy"]).or_else(|| any.clone());
    let http = first(["HTTP_PROXY", "http_proxy"]).or(any);
    let https = https.map(|(name, url)| (name, Proxy::https(url)));
    let http = http.map(|(name, url)| (name, Proxy::http(url)));
    let named = https.into_iter().chain(http).map(|(name, proxy)| {
        proxy.map(|proxy| proxy.no_proxy(direct.clone())).map_err(|_| {
            format!(
                "{name} does not name a valid proxy; set it to http://host:port or \
                 https://host:port, or remove it from the environment"
            )
        })
    });
    named.collect()
}

/// Returns the hosts of `NO_PROXY` in the form that the HTTP client reads.
fn separated_by_commas(list: &str) -> String {
    let hosts = list.split(|letter: char| letter == ',' || letter.is_whitespace());
    // `*.example.com` and `.example.com` are two spellings of the same hosts.
    let hosts = hosts.map(|host| match host.strip_prefix('*') {
        Some(domain) if domain.starts_with('.') => domain,
        _ => host,
    });
    hosts.filter(|host| !host.is_empty()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_without_a_proxy_are_separated_by_commas_or_blanks() {
        for (list, hosts) in [
            ("192.168.0.0/16,", "192.168.0.0/16"),
            ("localhost 192.168.3.4", "localhost,192.168.3.4"),
            (" .svc , *.fleet.example\t::1 ,,", ".svc,.fleet.example,::1"),
            ("*", "*"),
            (" , ", ""),
        ] {
            assert_eq!(separated_by_commas(list), hosts, "{list:?}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_told_by_its_variable_and_not_by_its_password() {
        let named = |value: &str| {
            proxies(|name| (name == "https_proxy").then(|| value.to_owned()))
                .map(|proxies| proxies.len())
        };
        for value in [" http://proxy.example:3128\n", "proxy.example:3128", "http://u:p@[::1]:80"]
        {
            assert_eq!(named(value), Ok(1), "{value:?}");
        }
        for value in ["", "  "] {
            assert_eq!(named(value), Ok(0), "{value:?}");
        }
        let error = named("http://u:secret-word@proxy example:80").expect_err("refused");
        assert!(error.starts_with("https_proxy does") && !error.contains("secret"), "{error}");
    }
}
