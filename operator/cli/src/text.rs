//! Text that is not the program's own, for a terminal. Pure.

use flashjob_api::is_visible;

/// Replaces control characters, and others that nobody sees, by spaces: they would move the
/// cursor, break a row or, like directional formatting characters, reorder the letters. Firmware,
/// devices and plugins write texts that are shown.
pub fn without_control_characters(text: &str) -> String {
    text.chars().map(|letter| if is_visible(letter) { letter } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_breaks_a_row_or_turns_letters_round_becomes_a_space() {
        for letter in ['\t', '\n', '\u{1b}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}'] {
            assert_eq!(without_control_characters(&format!("a{letter}b")), "a b", "{letter:?}");
        }
        assert_eq!(without_control_characters("1.2-é+木 (ü)"), "1.2-é+木 (ü)");
    }
}
