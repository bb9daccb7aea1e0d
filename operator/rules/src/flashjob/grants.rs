//! Grants in the operator's configuration: privileges that a plugin may give its Pods, and the
//! images for which they hold. Absence never means permission.

use flashjob_types::plugin::{Arg, EnvValue, FlashPod, User};
use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};

/// Grants of one plugin. They hold only for images that `images` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Grants {
    /// Patterns of image repositories: the host is literal, `*` matches one segment, `**` any
    /// number of segments at the end.
    pub images: Vec<String>,
    /// The container may run as root.
    pub run_as_root: bool,
    /// The container may be given the device on its node.
    pub attach_device: bool,
    /// Supplementary groups it may have.
    pub groups: Vec<u32>,
    /// Linux capabilities it may add, without `CAP_`.
    pub capabilities: Vec<String>,
    /// Secrets behind the plugin's slots.
    pub secrets: Vec<SecretGrant>,
}

/// The Secret behind a slot, in the Pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretGrant {
    /// The plugin's name for it.
    pub slot: String,
    /// The Secret.
    pub secret_name: String,
    /// The keys that the container may see.
    pub keys: Vec<String>,
}

/// Denial of a request for something that was not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

impl Grants {
    /// Returns true if the grants hold for this image.
    #[must_use]
    pub fn cover(&self, image: &str) -> bool {
        let Some(repository) = repository(image) else { return false };
        self.images.iter().any(|pattern| matches(pattern, &repository))
    }

    /// The Secret behind a slot.
    #[must_use]
    pub fn secret(&self, slot: &str) -> Option<&SecretGrant> {
        self.secrets.iter().find(|secret| secret.slot == slot)
    }

    /// Checks an answer against the grants.
    ///
    /// # Errors
    /// Names the denied request, the image, and the configuration that would grant it.
    pub fn check(&self, plugin: &str, flash: &FlashPod) -> Result<(), Denied> {
        let wishes = self.wishes(flash);
        // Without privileges any image may run: authors may name their own, in a restricted Pod.
        let Some((first, _)) = wishes.first() else { return Ok(()) };
        if !self.cover(&flash.image) {
            let pattern = repository(&flash.image).unwrap_or_default();
            return Err(Denied(format!(
                "plugin {plugin} requests {first}, but its grants do not cover image {}; add \
                 \"{pattern}\" to grants.images of the plugin in the operator's configuration",
                flash.image
            )));
        }
        match wishes.iter().find(|(_, granted)| !granted) {
            Some((wish, _)) => Err(Denied(format!(
                "plugin {plugin} requests {wish}, which the operator's configuration does not \
                 grant"
            ))),
            None => Ok(()),
        }
    }

    /// Requests for more than a restricted Pod gets, each with true if it is granted.
    fn wishes(&self, flash: &FlashPod) -> Vec<(String, bool)> {
        let mut wishes = Vec::new();
        if flash.user == User::Root {
            wishes.push(("runAsRoot".to_owned(), self.run_as_root));
        }
        if flash.attach_device {
            wishes.push(("attachDevice".to_owned(), self.attach_device));
        }
        wishes.extend(
            flash
                .groups
                .iter()
                .map(|group| (format!("group {group}"), self.groups.contains(group))),
        );
        wishes.extend(
            flash
                .capabilities
                .iter()
                .map(|name| (format!("capability {name}"), self.capabilities.contains(name))),
        );
        wishes.extend(flash.secrets.iter().map(|mount| {
            (format!("secret slot {}", mount.slot), self.secret(&mount.slot).is_some())
        }));
        let keys = flash.env.iter().filter_map(|(_, value)| match value {
            EnvValue::SecretKey { slot, key } => Some((slot, key)),
            EnvValue::Literal(_) | EnvValue::ExternalAddress => None,
        });
        wishes.extend(keys.map(|(slot, key)| {
            let granted = self.secret(slot).is_some_and(|secret| secret.keys.contains(key));
            (format!("key {key} of secret slot {slot}"), granted)
        }));
        wishes
    }
}

/// Returns true if the answer uses the Service's address: it then must have ports, or its Pod
/// would wait forever.
#[must_use]
pub(crate) fn uses_address(flash: &FlashPod) -> bool {
    let words = flash.command.iter().chain(&flash.args);
    words.into_iter().any(|word| matches!(word, Arg::ExternalAddress))
        || flash.env.iter().any(|(_, value)| matches!(value, EnvValue::ExternalAddress))
}

/// Returns true if a text is an image reference by the grammar that container runtimes use: it
/// cannot contain a path to a different repository.
#[must_use]
pub fn is_image(text: &str) -> bool {
    text.parse::<Reference>().is_ok()
}

/// `host/path` of an image reference, with the default host and folder added, and tag and digest
/// removed. None: it is not a reference.
fn repository(image: &str) -> Option<String> {
    let reference: Reference = image.parse().ok()?;
    Some(format!("{}/{}", reference.registry().to_ascii_lowercase(), reference.repository()))
}

/// Checks that a pattern of `images` matches at least one image.
///
/// # Errors
/// The pattern matches none. Returns the pattern that was probably meant, if there is one.
pub fn check_pattern(pattern: &str) -> Result<(), Option<String>> {
    let is_wildcard = |segment: &str| matches!(segment, "*" | "**");
    // A star beside other characters is literal, and no image has one.
    let whole = |segment: &str| match segment {
        segment if segment.contains("**") => "**".to_owned(),
        segment if segment.contains('*') => "*".to_owned(),
        segment => segment.to_owned(),
    };
    let lower = pattern.to_ascii_lowercase();
    let repaired: Vec<String> = lower.split('/').map(whole).collect();
    let segments: Vec<&str> = repaired.iter().map(String::as_str).collect();
    let example = segments.iter().map(|segment| if is_wildcard(segment) { "a" } else { *segment });
    let example = example.collect::<Vec<_>>().join("/");
    // The name of that image in full: references may omit the host and folder of Docker Hub,
    // patterns may not.
    let Some(image) = repository(&example) else { return Err(None) };
    if matches(pattern, &image) {
        return Ok(());
    }
    let mut meant: Vec<&str> = image.split('/').collect();
    if let [first, path @ ..] = segments.as_slice()
        && (first.contains(['.', ':']) || *first == "localhost")
    {
        // The pattern names a host, so another spelling of it may be all that is wrong.
        let host = meant.first().copied();
        let other: Vec<&str> = host.into_iter().chain(path.iter().copied()).collect();
        let other = other.join("/");
        if matches(&other, &image) {
            return Err(Some(other));
        }
    }
    // What is missing precedes the segments of the pattern.
    for (part, segment) in meant.iter_mut().rev().zip(segments.iter().rev()) {
        if is_wildcard(segment) {
            *part = segment;
        }
    }
    Err(Some(meant.join("/")))
}

fn matches(pattern: &str, repository: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let segments: Vec<&str> = repository.split('/').collect();
    // The host is literal: a wildcard there would extend the grant to anyone who can name a
    // registry.
    match (pattern.split_first(), segments.split_first()) {
        (Some((host, pattern)), Some((registry, segments))) => {
            *host == *registry && segments_match(pattern, segments)
        }
        _ => false,
    }
}

fn segments_match(pattern: &[&str], segments: &[&str]) -> bool {
    match (pattern.split_first(), segments.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            (0..=segments.len()).any(|skip| segments_match(rest, &segments[skip..]))
        }
        (Some((&"*", pattern)), Some((_, segments))) => segments_match(pattern, segments),
        (Some((literal, pattern)), Some((segment, segments))) => {
            literal == segment && segments_match(pattern, segments)
        }
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A Pod description that requests nothing.
    pub(in crate::flashjob) fn flash_pod(image: &str) -> FlashPod {
        FlashPod {
            image: image.to_owned(),
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            ports: Vec::new(),
            needs_ip: false,
            attach_device: false,
            groups: Vec::new(),
            capabilities: Vec::new(),
            user: User::ImageDefault,
            secrets: Vec::new(),
            scratch: Vec::new(),
            deadline_seconds: None,
            working_directory: None,
        }
    }

    fn grants(images: &[&str]) -> Grants {
        Grants {
            images: images.iter().map(|image| (*image).to_owned()).collect(),
            run_as_root: true,
            ..Grants::default()
        }
    }

    fn asking_for_root(image: &str) -> FlashPod {
        FlashPod { user: User::Root, ..flash_pod(image) }
    }

    #[test]
    fn a_grant_holds_for_the_images_it_names_and_no_others() {
        let grants = grants(&[
            "harbor.nbfc.io/nubificus/**",
            "docker.io/library/one",
            "localhost:5000/*/flasher",
        ]);
        for image in [
            "harbor.nbfc.io/nubificus/a:1",
            "harbor.nbfc.io/nubificus/a/b@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "HARBOR.nbfc.io/nubificus/a",
            "one:2",
            "localhost:5000/x/flasher:tag",
        ] {
            assert!(grants.cover(image), "{image}");
        }
        for image in [
            "harbor.nbfc.io/other/a",
            "evil.io/harbor.nbfc.io/nubificus/a",
            "harbor.nbfc.io.evil.io/nubificus/a",
            "two",
            "localhost:5000/x/y/flasher",
            "harbor.nbfc.io",
        ] {
            assert!(!grants.cover(image), "{image}");
        }
    }

    #[test]
    fn a_pattern_that_matches_no_image_is_refused_with_the_one_that_was_meant() {
        for pattern in [
            "registry.example/team/**",
            "registry.example:5000/*/flasher",
            "localhost/team/flasher",
            "docker.io/**",
            "docker.io/library/*",
            "docker.io/team/**/flasher",
        ] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
        }
        for (pattern, meant) in [
            ("registry.example/team/esp32-*", "registry.example/team/*"),
            ("registry.example/team**", "registry.example/**"),
            ("registry.example/*-flasher/one", "registry.example/*/one"),
            ("Registry.EXAMPLE/team/*", "registry.example/team/*"),
            ("registry.example/Team/*", "registry.example/team/*"),
            ("team/**", "docker.io/team/**"),
            ("team/flasher", "docker.io/team/flasher"),
            ("docker.io/flasher", "docker.io/library/flasher"),
            ("docker.io/*", "docker.io/library/*"),
            ("index.docker.io/team/*", "docker.io/team/*"),
            ("index.docker.io/**", "docker.io/**"),
        ] {
            assert_eq!(check_pattern(pattern), Err(Some(meant.to_owned())), "{pattern}");
            assert_eq!(check_pattern(meant), Ok(()), "{meant}");
        }
        for pattern in ["registry.example/team//a", "registry.example/_team/*", ""] {
            assert_eq!(check_pattern(pattern), Err(None), "{pattern}");
        }
    }

    #[test]
    fn what_leads_elsewhere_than_it_reads_is_no_image() {
        let grants = grants(&["harbor.nbfc.io/nubificus/**"]);
        for image in [
            "harbor.nbfc.io/nubificus/../other/a:1",
            "harbor.nbfc.io/nubificus/./a:1",
            "harbor.nbfc.io/nubificus//a:1",
            "harbor.nbfc.io/nubificus/%2e%2e/a:1",
            "harbor.nbfc.io/nubificus/a@evil.example/b:1",
            "harbor.nbfc.io/nubificus/a@sha256:00",
            "harbor.nbfc.io/nubificus/a:1?b",
            "harbor.nbfc.io/nubificus/a:1#b",
            "https://harbor.nbfc.io/nubificus/a:1",
            "user@harbor.nbfc.io/nubificus/a:1",
            "harbor.nbfc.io\\nubificus/a:1",
            "harbor.nbfc.io/nubificus/a: 1",
            "",
        ] {
            assert!(!is_image(image) && !grants.cover(image), "{image}");
        }
    }

    #[test]
    fn a_wildcard_as_host_grants_nothing() {
        assert!(!grants(&["**"]).cover("harbor.nbfc.io/a"));
        assert!(!grants(&["*/a"]).cover("harbor.nbfc.io/a"));
    }

    #[test]
    fn absence_of_a_grant_denies_by_name() {
        let image = "harbor.nbfc.io/nubificus/a:1";
        assert_eq!(
            grants(&["harbor.nbfc.io/nubificus/*"]).check("esp32", &asking_for_root(image)),
            Ok(())
        );
        let denied =
            Grants::default().check("esp32", &asking_for_root(image)).expect_err("denied");
        assert!(denied.0.contains("runAsRoot") && denied.0.contains(image), "{denied}");
        let without = Grants { run_as_root: false, ..grants(&["harbor.nbfc.io/nubificus/*"]) };
        assert!(without.check("esp32", &asking_for_root(image)).is_err());
    }
}
