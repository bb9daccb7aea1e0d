//! Characters that a version or a reference may not contain, because nobody sees that they are in
//! it. Pure.

/// Character class of the patterns: no white space, control or format character, and none that is
/// default ignorable or blank.
macro_rules! visible {
    () => {
        concat!(
            r"[^\s\p{Z}\p{Cc}\p{Cf}\x{34F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}",
            r"\x{2065}\x{2800}\x{3164}\x{FE00}-\x{FE0F}\x{FFA0}\x{FFF0}-\x{FFF8}",
            r"\x{E0000}-\x{E0FFF}]"
        )
    };
}

/// Pattern of a text that has characters, all of them visible. The API server reads it with RE2,
/// which knows the general categories of Unicode, but no other properties: the code points that
/// are invisible for another reason are listed.
pub(crate) const VISIBLE_TEXT: &str = concat!("^", visible!(), "+$");

/// The same for a text that may be empty.
pub(crate) const VISIBLE_OR_EMPTY_TEXT: &str = concat!("^", visible!(), "*$");

/// Characters other than white space and control characters that are invisible (Unicode 16):
/// format characters (general category Cf), such as the zero width space, default ignorable code
/// points, such as variation selectors and the Hangul filler, and BRAILLE PATTERN BLANK (U+2800).
const INVISIBLE: [(char, char); 26] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Returns false for white space, control characters and other characters that nobody sees, which
/// the patterns of the definitions refuse too.
#[must_use]
pub fn is_visible(letter: char) -> bool {
    let is_listed = || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&letter));
    !letter.is_whitespace() && !letter.is_control() && (letter.is_ascii() || !is_listed())
}

/// Returns the fault of a text that is to have characters, all of them visible; None if it has
/// none.
pub(crate) fn fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("must not be empty".to_owned());
    }
    let hidden = text.chars().find(|letter| !is_visible(*letter))?;
    Some(format!(
        "contains the character U+{:04X}; remove white space and invisible characters",
        u32::from(hidden)
    ))
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use regex::Regex;

    use super::*;
    use crate::{FlashJob, FlashRollout};

    #[test]
    fn the_patterns_of_the_definitions_refuse_the_characters_that_are_not_visible() {
        let letters = '\0'..=char::MAX;
        let (visible, hidden): (Vec<_>, Vec<_>) = letters.partition(|one| is_visible(*one));
        let visible: String = visible.into_iter().collect();
        for (definition, fields) in [
            (FlashJob::crd(), &["firmware", "version", "hostEndpoint"][..]),
            (FlashRollout::crd(), &["firmware", "version"][..]),
        ] {
            let definition = serde_json::to_value(definition).expect("a definition");
            for field in fields {
                let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
                let pattern = definition.pointer(&format!("{schema}/{field}/pattern"));
                let pattern = pattern.and_then(|pattern| pattern.as_str()).expect("a pattern");
                let pattern = Regex::new(pattern).expect("a regular expression");
                assert!(pattern.is_match(&visible), "{field}");
                for letter in &hidden {
                    assert!(!pattern.is_match(&format!("1{letter}")), "{field}: {letter:?}");
                }
            }
        }
    }

    #[test]
    fn a_character_is_hidden_if_a_property_of_unicode_says_so() {
        let hidden = r"[\p{White_Space}\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\x{2800}]";
        let hidden = Regex::new(hidden).expect("a regular expression");
        for letter in '\0'..=char::MAX {
            let mut text = [0; 4];
            let is_hidden = hidden.is_match(letter.encode_utf8(&mut text));
            assert_eq!(is_visible(letter), !is_hidden, "{letter:?}");
        }
    }

    #[test]
    fn a_character_that_nobody_sees_is_named_by_its_number() {
        for (text, number) in [
            ("1.2\u{200b}", "U+200B"),
            ("\u{feff}1", "U+FEFF"),
            ("1\n", "U+000A"),
            // The Hangul filler, a combining grapheme joiner, a variation selector, and BRAILLE
            // PATTERN BLANK.
            ("1\u{3164}", "U+3164"),
            ("1\u{34f}", "U+034F"),
            ("1\u{fe0f}", "U+FE0F"),
            ("\u{2800}1", "U+2800"),
        ] {
            let fault = fault(text).expect("a fault");
            assert!(fault.starts_with(&format!("contains the character {number}; ")), "{fault}");
        }
        assert_eq!(fault("1.2-é+木"), None);
    }
}
