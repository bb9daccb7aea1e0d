//! Text that is not the program's own, for a terminal. Pure.

/// Replaces control characters by spaces: they would move the cursor or break a row. Firmware,
/// devices and plugins write texts that are shown.
pub fn without_control_characters(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
