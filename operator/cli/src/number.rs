//! Whole numbers on the command line.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Parses a whole number within bounds.
///
/// # Errors
/// The text is no number, or is out of bounds.
pub fn number<N>(text: &str, bounds: RangeInclusive<N>) -> Result<N, String>
where
    N: Copy + Display + FromStr + PartialOrd,
{
    let number = text.trim().parse().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| {
        format!("{text:?} is not a number from {} to {}", bounds.start(), bounds.end())
    })
}
