//! A registry behind its mirrors. They are asked in order, the registry itself last; what is asked
//! for by digest is the same wherever it comes from, and a tag means what the first that has it
//! says. Talks to registries.

use crate::config::RegistryConfig;
use crate::registry::{Layer, Receive, Referrer, Repository, found};
use crate::{Digest, Logins, Reference, RegistryError};

/// The registry's own repository, and the same in its mirrors.
pub(crate) struct Mirrored<'a> {
    /// In the order in which they are asked. The last is the registry itself.
    places: Vec<Repository<'a>>,
}

/// Place whose turn it is, and the errors of those before it.
#[derive(Default)]
struct Turn {
    at: usize,
    passed: Vec<RegistryError>,
}

/// Hosts and repositories that a reference is fetched from, mirrors first: what passwords are
/// needed for.
#[must_use]
pub fn places(reference: &Reference, registries: &[RegistryConfig]) -> Vec<(String, String)> {
    let Reference::Registry { host, repository, .. } = reference else { return Vec::new() };
    let mirrors = mirrors(host, registries).iter().map(|mirror| {
        let (host, prefix) = split(mirror);
        let name =
            prefix.map_or_else(|| repository.clone(), |prefix| format!("{prefix}/{repository}"));
        (host.to_ascii_lowercase(), name)
    });
    mirrors.chain([(host.clone(), repository.clone())]).collect()
}

fn mirrors<'a>(host: &str, registries: &'a [RegistryConfig]) -> &'a [String] {
    registries
        .iter()
        .find(|registry| registry.is_at(host))
        .map_or(&[], |registry| &registry.mirrors)
}

/// Host, and the path before a repository's name.
pub(crate) fn split(mirror: &str) -> (&str, Option<&str>) {
    mirror.split_once('/').map_or((mirror, None), |(host, prefix)| (host, Some(prefix)))
}

impl<'a> Mirrored<'a> {
    pub fn new(
        host: &str,
        repository: &str,
        registries: &'a [RegistryConfig],
        logins: &'a Logins,
    ) -> Result<Self, RegistryError> {
        let mut places = Vec::new();
        for mirror in mirrors(host, registries) {
            let (host, prefix) = split(mirror);
            let repository = prefix
                .map_or_else(|| repository.to_owned(), |prefix| format!("{prefix}/{repository}"));
            places.push(Repository::new(host, &repository, registries, logins)?);
        }
        places.push(Repository::new(host, repository, registries, logins)?);
        Ok(Self { places })
    }

    /// The manifest of the first place that has it.
    pub async fn manifest_bytes(
        &mut self,
        wanted: &str,
        expected: Option<&Digest>,
        limit: usize,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        let mut turn = Turn::default();
        loop {
            match self.places[turn.at].manifest_bytes(wanted, expected, limit).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => self.pass_over(&mut turn, error)?,
            }
        }
    }

    /// Fetches the blob of the first place that has it.
    pub async fn blob_into(
        &mut self,
        layer: &Layer,
        into: &mut impl Receive,
    ) -> Result<(), RegistryError> {
        let mut turn = Turn::default();
        loop {
            match self.places[turn.at].blob_into(layer, into).await {
                Ok(()) => return Ok(()),
                Err(error) => self.pass_over(&mut turn, error)?,
            }
        }
    }

    /// The start of the blob of the first place that has it.
    pub async fn blob_start(
        &mut self,
        layer: &Layer,
        most: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut turn = Turn::default();
        loop {
            match self.places[turn.at].blob_start(layer, most).await {
                Ok(start) => return Ok(start),
                Err(error) => self.pass_over(&mut turn, error)?,
            }
        }
    }

    /// Lists what refers to a manifest, in the first place where something does: a mirror may have
    /// the manifest alone.
    pub async fn referrers(&mut self, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let mut turn = Turn::default();
        loop {
            let place = &mut self.places[turn.at];
            let error = match place.referrers(digest).await {
                Ok(referrers) if referrers.is_empty() => {
                    place.has_no(&format!("signature of {digest}"))
                }
                Ok(referrers) => return Ok(referrers),
                Err(error) => error,
            };
            if found(self.pass_over(&mut turn, error))?.is_none() {
                return Ok(Vec::new());
            }
        }
    }

    /// Goes on to the next place, unless this error is the answer. A mirror that does not answer
    /// is asked no more in this load.
    fn pass_over(&mut self, turn: &mut Turn, error: RegistryError) -> Result<(), RegistryError> {
        let is_last = turn.at + 1 == self.places.len();
        if is_last || !self.places[turn.at].may_be_passed_over(&error) {
            return Err(error.after(&turn.passed));
        }
        tracing::debug!(%error, "a mirror is passed over");
        if error.is_transient() {
            self.places.remove(turn.at);
        } else {
            turn.at += 1;
        }
        turn.passed.push(error);
        Ok(())
    }

    pub fn what(&self, wanted: &str) -> String {
        self.places.last().map_or_else(|| wanted.to_owned(), |registry| registry.what(wanted))
    }
}
