//! Texts that are cut to a length. Pure.

/// Marks the end at which a text is cut.
const MARK: &str = "…";
/// Longest termination message of a container, in bytes: the kubelet cuts a longer one.
pub const MESSAGE_BYTES: usize = 4096;

/// Returns a text of at most this many characters, at least 1: the text itself, or its beginning
/// and a mark.
#[must_use]
pub fn beginning(text: &str, characters: usize) -> String {
    let mut ends = text.char_indices().map(|(place, _)| place).skip(characters.saturating_sub(1));
    match (ends.next(), ends.next()) {
        (Some(end), Some(_)) => format!("{}{MARK}", &text[..end]),
        _ => text.to_owned(),
    }
}

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

/// The end of a text in one line: as many whole lines as fit, since programs print the cause of a
/// failure last. A last line that is too long is cut at its beginning.
#[must_use]
pub fn last_lines(text: &str, bytes: usize) -> String {
    let lines = text
        .lines()
        .map(without_control_characters)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>();
    let mut kept = 0;
    let mut length = 0;
    for line in lines.iter().rev() {
        length += line.len() + 1;
        if length > bytes + 1 {
            break;
        }
        kept += 1;
    }
    match (kept, lines.last()) {
        (0, Some(last)) => {
            let from = last.len().saturating_sub(bytes);
            let from = (from..last.len()).find(|from| last.is_char_boundary(*from));
            format!("{MARK}{}", &last[from.unwrap_or(last.len())..])
        }
        _ => lines[lines.len() - kept..].join(" "),
    }
}

/// Text from a container without control characters, limited to its last `MESSAGE_BYTES`.
#[must_use]
pub fn without_control_characters(text: &str) -> String {
    let from = text.len().saturating_sub(MESSAGE_BYTES);
    let from = (from..text.len()).find(|from| text.is_char_boundary(*from)).unwrap_or(text.len());
    let letters = text[from..].chars();
    let printable = letters.map(|letter| if letter.is_control() { ' ' } else { letter });
    printable.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_whole_or_ends_with_a_mark_and_has_at_most_this_many_characters() {
        for (text, characters, expected) in
            [("", 1, ""), ("äbc", 3, "äbc"), ("äbcd", 3, "äb…"), ("ab", 1, "…")]
        {
            assert_eq!(beginning(text, characters), expected, "{text:?} in {characters}");
        }
    }

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

    #[test]
    fn the_last_lines_are_those_that_fit_and_a_longer_last_line_begins_with_a_mark() {
        for (text, bytes, expected) in [
            ("", 3, ""),
            ("a\nb\n", 3, "a b"),
            ("a\nb\nc", 3, "b c"),
            ("a\n\n b\tc \n", 3, "b c"),
            ("abcd", 3, "…bcd"),
            ("aäb", 2, "…b"),
        ] {
            assert_eq!(last_lines(text, bytes), expected, "{text:?} in {bytes}");
        }
    }
}
