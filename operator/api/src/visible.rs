//! Characters that a version or a reference may not contain, because nobody sees that they are in
//! it. Pure.

/// Format characters (Unicode 16, general category Cf), such as the zero width space.
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Returns false for white space, control characters and format characters, which the patterns of
/// the definitions refuse too.
#[must_use]
pub fn is_visible(letter: char) -> bool {
    let is_format = || FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&letter));
    !letter.is_whitespace() && !letter.is_control() && (letter.is_ascii() || !is_format())
}

/// Returns the fault of a text that is to have characters, all of them visible; None if it has
/// none.
pub(crate) fn fault(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("must not be empty".to_owned());
    }
    let hidden = text.chars().find(|letter| !is_visible(*letter))?;
    Some(format!(
        "contains the character U+{:04X}; remove white space, control and format characters",
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
    fn a_character_that_nobody_sees_is_named_by_its_number() {
        for (text, number) in
            [("1.2\u{200b}", "U+200B"), ("\u{feff}1", "U+FEFF"), ("1\n", "U+000A")]
        {
            let fault = fault(text).expect("a fault");
            assert!(fault.starts_with(&format!("contains the character {number}; ")), "{fault}");
        }
        assert_eq!(fault("1.2-é+木"), None);
    }
}
