//! Counts in words, for messages. Pure.

/// Returns a number of things in words: `1 device`, `12 devices`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_named_in_the_singular() {
        let texts = [0, 1, 2].map(|count| counted(count, "device"));
        assert_eq!(texts, ["0 devices", "1 device", "2 devices"]);
    }
}
