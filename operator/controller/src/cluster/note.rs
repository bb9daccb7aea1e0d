//! Texts of Kubernetes events, within the lengths that the API server accepts.

/// Longest note of an event that the API server accepts, in bytes.
pub const NOTE_BYTES: usize = 1024;

/// Marks a text whose end is missing.
const MARK: &str = "…";

/// Returns a text of at most this many bytes: the text itself, or its beginning and a mark.
#[must_use]
pub fn shortened(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    match bytes.checked_sub(MARK.len()) {
        Some(room) => format!("{}{MARK}", &text[..text.floor_char_boundary(room)]),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_or_ends_with_a_mark_and_has_at_most_this_many_bytes() {
        for (text, bytes, expected) in [
            ("abc", 3, "abc"),
            ("", 0, ""),
            ("abcd", 3, "…"),
            ("abcd", 2, ""),
            ("abcdefgh", 6, "abc…"),
            ("aaäbcdef", 6, "aa…"),
        ] {
            assert_eq!(shortened(text, bytes), expected, "{text:?} in {bytes}");
        }
    }
}
