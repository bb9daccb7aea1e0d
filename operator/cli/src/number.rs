//! Whole numbers of the command line.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads a whole number within bounds.
///
/// # Errors
/// It is none, or is beyond them.
pub fn number<N>(text: &str, bounds: RangeInclusive<N>) -> Result<N, String>
where
    N: Copy + Display + FromStr + PartialOrd,
{
    let number = text.trim().parse().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| {
        format!("{text:?} is not a number from {} to {}", bounds.start(), bounds.end())
    })
}
