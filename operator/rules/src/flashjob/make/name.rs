//! Names of Pods and Services: within the limits of Kubernetes, and always the same for the same
//! device and attempt.

use sha2::{Digest, Sha256};

/// Returns `fj-<job, dots to dashes, at most 40>-<12 hexadecimal digits of SHA-256(job uid, run,
/// device, attempt)>`: a DNS-1035 label.
#[must_use]
pub fn attempt_name(job: &str, job_uid: &str, run: &str, device: &str, attempt: u32) -> String {
    // The name depends on nothing else, so a create that is repeated after a crash is answered 409
    // and does not start a second Pod.
    name(job, &[job_uid, run, device, &attempt.to_string()])
}

/// Name of the pooled Service with this number.
#[must_use]
pub(crate) fn pool_name(job: &str, job_uid: &str, pool: &str, number: usize) -> String {
    name(job, &[job_uid, "pool", pool, &number.to_string()])
}

/// Name of the job's PodDisruptionBudget.
#[must_use]
pub(crate) fn budget_name(job: &str, job_uid: &str) -> String {
    name(job, &[job_uid, "budget"])
}

/// Slot, by which a Service selects its Pod: the unique part of the Service's name.
#[must_use]
pub fn slot(service_name: &str) -> &str {
    service_name.rsplit('-').next().unwrap_or(service_name)
}

fn name(job: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length keeps adjacent parts from running together.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let number =
        hash.finalize().iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte));
    // A FlashJob's name may contain dots (DNS subdomain, RFC 1123). A Service's name may not: it
    // is a label (RFC 1035) of at most 63 characters.
    let readable = job[..job.floor_char_boundary(40)].replace('.', "-");
    format!("fj-{readable}-{number:012x}")
}

#[cfg(test)]
mod tests {
    use super::{attempt_name, slot};

    #[test]
    fn a_name_is_a_dns_label_of_at_most_56_characters_for_every_job_name() {
        for job in ["a", "my.dotted.job", &"x".repeat(63), &format!("{}.9", "y".repeat(60))] {
            let name = attempt_name(job, "uid", "run", "device", 1);
            assert!(name.len() <= 56, "{name}");
            assert!(name.starts_with("fj-") && !name.ends_with('-'));
            assert!(
                name.chars().all(|letter| letter.is_ascii_lowercase()
                    || letter.is_ascii_digit()
                    || letter == '-'),
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_is_the_same_for_the_same_attempt_and_another_for_any_other() {
        let base = attempt_name("job", "uid", "run", "device", 1);
        assert_eq!(base, attempt_name("job", "uid", "run", "device", 1));
        let other_names = [
            attempt_name("job", "uid2", "run", "device", 1),
            attempt_name("job", "uid", "run2", "device", 1),
            attempt_name("job", "uid", "run", "device2", 1),
            attempt_name("job", "uid", "run", "device", 2),
            attempt_name("job", "uid", "rundevice", "", 1),
        ];
        assert!(other_names.iter().all(|other| *other != base));
    }

    #[test]
    fn the_slot_is_the_hash_of_the_name() {
        assert_eq!(slot("fj-my-job-0123456789ab"), "0123456789ab");
    }
}
