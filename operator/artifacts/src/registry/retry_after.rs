//! Delay that a registry asks for before the next request (RFC 9110, "Retry-After").

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Upper limit for the delay, whatever the registry asks for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Returns the delay that a response asks for, in whole seconds or until a date; at most
/// [`LONGEST`]. None if the header is absent or malformed.
pub(super) fn read(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_no_pause_is_longer_than_an_hour() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("86400", Some(3600)),
            ("Sun, 06 Nov 1994 08:51:07 GMT", Some(90)),
            ("Sunday, 06-Nov-94 08:51:07 GMT", Some(90)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(3600)),
            ("99999999999999999999999", None),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let headers = [(RETRY_AFTER, text.parse().expect("a value"))].into_iter().collect();
            assert_eq!(read(&headers, now), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(read(&HeaderMap::new(), now), None);
    }
}
