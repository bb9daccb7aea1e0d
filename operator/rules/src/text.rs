//! Texts of which a status shows only the beginning. Pure.

/// Marks a text whose end is missing.
const MARK: char = '…';

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
}
