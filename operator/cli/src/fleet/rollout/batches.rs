//! Batches of the command line: `canary=1`, `ten=10%`, and those that need approval.

use std::time::Duration;

use flashjob_api::{BatchSpec, REST};
use flashjob_rules::flashjob::policy::is_dns_label;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::failure::Failure;

/// Parses a batch: its name, and its size as a number of devices or a percentage of all; without a
/// size, it takes all remaining devices.
///
/// # Errors
/// The name or the size is invalid.
pub fn parse(text: &str) -> Result<BatchSpec, String> {
    let (name, size) = match text.split_once('=') {
        Some((name, size)) => (name.trim(), Some(size.trim())),
        None => (text.trim(), None),
    };
    if !is_dns_label(name) {
        return Err(format!(
            "{name:?} is not a valid name of a batch; expected lower-case letters, digits and \
             dashes, such as canary=1"
        ));
    }
    let size = size.map(|size| match amount(size) {
        Some(IntOrString::Int(0)) | None => Err(format!(
            "{size:?} is not the size of a batch; expected a number from 1, or 1% to 100%, such \
             as canary=1 or ten=10%"
        )),
        Some(IntOrString::String(share)) if share == "0%" => {
            Err(format!("{size:?} of all devices is none; expected 1% to 100%"))
        }
        Some(size) => Ok(size),
    });
    Ok(BatchSpec { name: name.to_owned(), size: size.transpose()?, ..BatchSpec::default() })
}

/// Parses the number of devices that may fail, or their percentage.
///
/// # Errors
/// The text is neither.
pub fn budget(text: &str) -> Result<IntOrString, String> {
    let expected = || {
        format!(
            "{text:?} is not a number of devices; expected a number or a percentage, such as 3 or \
             5%"
        )
    };
    amount(text.trim()).ok_or_else(expected)
}

/// Parses a percentage: `90%`.
///
/// # Errors
/// The text is not a percentage.
pub fn share(text: &str) -> Result<String, String> {
    match amount(text.trim()) {
        Some(IntOrString::String(share)) => Ok(share),
        _ => Err(format!("{text:?} is not a percentage; expected 0% to 100%, such as 90%")),
    }
}

fn amount(text: &str) -> Option<IntOrString> {
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent: u8 = percent.parse().ok().filter(|percent| *percent <= 100)?;
            Some(IntOrString::String(format!("{percent}%")))
        }
        None => text.parse().ok().filter(|count| *count >= 0).map(IntOrString::Int),
    }
}

/// Settings of the command line that apply to several batches.
#[derive(Clone, Copy, Debug)]
pub struct Gates<'a> {
    /// Batches that need approval, by name or by number from 1.
    pub approve: &'a [String],
    /// Soak time after each batch, in which its devices are watched.
    pub soak: Option<Duration>,
}

impl Gates<'_> {
    /// Adds the settings to the batches; if there are none, to the default batches. Returns none
    /// if there are neither batches nor settings; the spec then has no batches.
    ///
    /// # Errors
    /// No batch has that name or number.
    pub fn add_to(&self, batches: Vec<BatchSpec>) -> Result<Option<Vec<BatchSpec>>, Failure> {
        let asks = !self.approve.is_empty() || self.soak.is_some();
        let mut batches = match (batches.is_empty(), asks) {
            (true, false) => return Ok(None),
            // Devices that are left after these form a batch of their own already: `rest`.
            (true, true) => default_batches(),
            (false, _) => batches,
        };
        for name_or_number in self.approve {
            let place = self.place(name_or_number, &mut batches)?;
            if let Some(batch) = batches.get_mut(place) {
                batch.approval = Some(true);
            }
        }
        if let Some(soak) = self.soak {
            let seconds = i64::try_from(soak.as_secs()).unwrap_or(i64::MAX);
            batches.iter_mut().for_each(|batch| batch.soak_seconds = Some(seconds));
        }
        Ok(Some(batches))
    }

    /// Returns the index of a batch; adds the batch of the remaining devices if it is asked for.
    fn place(&self, name_or_number: &str, batches: &mut Vec<BatchSpec>) -> Result<usize, Failure> {
        let names: Vec<&str> = batches.iter().map(|batch| batch.name.as_str()).collect();
        if let Some(place) = position(name_or_number, &names) {
            return Ok(place);
        }
        let next = batches.len() + 1;
        // The operator forms this batch without being asked; only a batch in the spec can demand
        // an approval.
        if name_or_number == REST || name_or_number.parse() == Ok(next) {
            batches.push(BatchSpec { name: REST.to_owned(), ..BatchSpec::default() });
            return Ok(next - 1);
        }
        let message = format!(
            "--approve {name_or_number}: no batch has that name or number; the batches are {}",
            list(&names)
        );
        Err(Failure::usage(message))
    }
}

/// Returns the index of a batch by its name, else by its number from 1.
pub fn position(name_or_number: &str, names: &[&str]) -> Option<usize> {
    // The name first, as a batch may have a number as its name.
    let by_name = names.iter().position(|name| *name == name_or_number);
    by_name.or_else(|| {
        let number: usize = name_or_number.parse().ok()?;
        (1..=names.len()).contains(&number).then(|| number - 1)
    })
}

/// Returns names of batches with their numbers.
pub fn list(names: &[&str]) -> String {
    let numbered = names.iter().enumerate().map(|(place, name)| format!("{} {name}", place + 1));
    numbered.collect::<Vec<_>>().join(", ")
}

fn default_batches() -> Vec<BatchSpec> {
    let of = |name: &str, size| BatchSpec {
        name: name.to_owned(),
        size: Some(size),
        ..BatchSpec::default()
    };
    vec![
        of("canary", IntOrString::Int(1)),
        of("ten-percent", IntOrString::String("10%".to_owned())),
    ]
}

/// Returns a batch in words: name, size and approval.
pub fn in_words(batch: &BatchSpec) -> String {
    let size = match &batch.size {
        Some(IntOrString::Int(count)) => format!(" {count}"),
        Some(IntOrString::String(share)) => format!(" {share}"),
        None => String::new(),
    };
    let approval = if batch.approval == Some(true) { " after approval" } else { "" };
    format!("{}{size}{approval}", batch.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Vec<BatchSpec> {
        texts.iter().map(|text| parse(text).expect(text)).collect()
    }

    #[test]
    fn a_batch_has_a_name_and_a_number_or_a_percentage() {
        let batches = of(&["canary=1", "ten=10%", "rest"]);
        let sizes: Vec<_> = batches.into_iter().map(|batch| batch.size).collect();
        let ten = IntOrString::String("10%".to_owned());
        assert_eq!(sizes, [Some(IntOrString::Int(1)), Some(ten), None]);
        for text in ["", "=1", "a=0", "a=0%", "a=101%", "a=-1", "a=ten", "A=1", "-a=1", "a_b=1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(budget("0"), Ok(IntOrString::Int(0)));
        assert_eq!(share("90%"), Ok("90%".to_owned()));
        assert!(budget("-1").is_err() && share("90").is_err());
    }

    #[test]
    fn approval_is_asked_by_name_or_number_and_soak_is_for_each_batch() {
        let (approve, soak) = (["2".to_owned(), REST.to_owned()], Some(Duration::from_secs(60)));
        let batches = Gates { approve: &approve, soak }.add_to(of(&["canary=1", "ten=10%"]));
        let batches = batches.expect("they exist").expect("they are written");
        let approvals: Vec<_> =
            batches.iter().map(|one| (one.name.as_str(), one.approval.is_some())).collect();
        assert_eq!(approvals, [("canary", false), ("ten", true), (REST, true)]);
        assert!(batches.iter().all(|batch| batch.soak_seconds == Some(60)));
        let approve = ["five".to_owned()];
        let refused = Gates { approve: &approve, soak: None }.add_to(of(&["canary=1"]));
        assert!(refused.is_err_and(|failure| failure.message.contains("1 canary")));
    }

    #[test]
    fn default_batches_are_written_only_where_something_is_asked_of_them() {
        let none = Gates { approve: &[], soak: None };
        assert_eq!(none.add_to(Vec::new()).expect("valid"), None);
        let approve = ["ten-percent".to_owned()];
        let written = Gates { approve: &approve, soak: None }.add_to(Vec::new());
        let written = written.expect("valid").expect("written");
        assert_eq!(
            written.iter().map(in_words).collect::<Vec<_>>(),
            ["canary 1", "ten-percent 10% after approval"]
        );
    }
}
