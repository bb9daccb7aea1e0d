//! A registry behind its mirrors. They are tried in order, the registry itself last. A digest
//! means the same content at every place; a tag means what the first place that has it says. Sends
//! requests to registries.

use crate::config::{RegistryConfig, SignatureForm};
use crate::registry::{Layer, Receive, Referrers, Repository, none_if_absent};
use crate::{Digest, Logins, Reference, RegistryError};

/// Repository in the registry itself, and the same repository in its mirrors.
pub(crate) struct Mirrored<'a> {
    /// Places in the order in which they are tried. The last one is the registry itself.
    places: Vec<Repository<'a>>,
}

/// Index of the current place, and the errors of the places before it.
#[derive(Default)]
struct Turn {
    at: usize,
    passed: Vec<RegistryError>,
}

/// Returns the hosts and repositories that a reference is fetched from, mirrors first: the places
/// that may need credentials.
#[must_use]
pub fn places(reference: &Reference, registries: &[RegistryConfig]) -> Vec<(String, String)> {
    let Reference::Registry { host, repository, .. } = reference else { return Vec::new() };
    // Mirrors of a mirror are ignored, so that no configuration can lead into a loop.
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

/// Splits a mirror into its host and the path that precedes a repository's name.
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

    /// Returns the manifest from the first place that has it.
    pub async fn manifest_bytes(
        &mut self,
        tag_or_digest: &str,
        expected: Option<&Digest>,
        limit: usize,
    ) -> Result<(Digest, Vec<u8>), RegistryError> {
        let mut turn = Turn::default();
        loop {
            match self.places[turn.at].manifest_bytes(tag_or_digest, expected, limit).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => self.try_next(&mut turn, error)?,
            }
        }
    }

    /// Returns the manifest under a tag from the first place that has it, None if there is none.
    /// The number is that of the places after the one that decided this: these were not asked.
    pub async fn manifest_if_present(
        &mut self,
        tag: &str,
        limit: usize,
    ) -> (usize, Result<Option<Vec<u8>>, RegistryError>) {
        let mut turn = Turn::default();
        loop {
            let answer = self.places[turn.at].manifest_bytes(tag, None, limit).await;
            let answer = match answer {
                Ok((_, bytes)) => Ok(Some(bytes)),
                Err(error) => match none_if_absent(self.try_next(&mut turn, error)) {
                    Ok(Some(())) => continue,
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                },
            };
            return (self.places.len() - 1 - turn.at, answer);
        }
    }

    /// Fetches the blob from the first place that has it.
    pub async fn blob_into(
        &mut self,
        layer: &Layer,
        into: &mut impl Receive,
    ) -> Result<(), RegistryError> {
        let mut turn = Turn::default();
        loop {
            match self.places[turn.at].blob_into(layer, into).await {
                Ok(()) => return Ok(()),
                Err(error) => self.try_next(&mut turn, error)?,
            }
        }
    }

    /// Returns the first bytes of the blob from the first place that has it.
    pub async fn blob_start(
        &mut self,
        layer: &Layer,
        most: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut turn = Turn::default();
        loop {
            match self.places[turn.at].blob_start(layer, most).await {
                Ok(start) => return Ok(start),
                Err(error) => self.try_next(&mut turn, error)?,
            }
        }
    }

    /// Lists the referrers of a manifest that may be signatures in one form, from the first place
    /// that has any: a mirror may have only the manifest. The last `unasked` places are left out.
    pub async fn referrers(
        &mut self,
        digest: &Digest,
        form: SignatureForm,
        unasked: usize,
    ) -> Result<Referrers, RegistryError> {
        let (mut turn, mut others) = (Turn::default(), Vec::new());
        loop {
            let place = &mut self.places[turn.at];
            let error = match place.referrers(digest, form).await {
                // Pull-through caches often fetch only what is pulled by name, so a list without
                // signatures proves nothing, whatever else a cache has attached itself. A list that
                // was read in part proves nothing either, but the caller must know that.
                Ok(referrers) if referrers.likely == 0 && referrers.cut_after.is_none() => {
                    others.extend(referrers.candidates);
                    place.has_no(&format!("signature of {digest}"))
                }
                Ok(referrers) => {
                    let candidates = [referrers.candidates, others].concat();
                    let cut_after = referrers.cut_after;
                    return Ok(Referrers { cut_after, ..Referrers::of(candidates, form) });
                }
                Err(error) => error,
            };
            match none_if_absent(self.try_next_before(unasked, &mut turn, error)) {
                Ok(Some(())) => {}
                Ok(None) => return Ok(Referrers::of(others, form)),
                // One of the others may be a signature all the same.
                Err(error) if !others.is_empty() => {
                    let incomplete = Some(error);
                    return Ok(Referrers { incomplete, ..Referrers::of(others, form) });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Proceeds to the next place, unless this error is final. A mirror that does not answer is
    /// not tried again during this load.
    fn try_next(&mut self, turn: &mut Turn, error: RegistryError) -> Result<(), RegistryError> {
        self.try_next_before(0, turn, error)
    }

    /// Does the same, but leaves out the last `unasked` places.
    fn try_next_before(
        &mut self,
        unasked: usize,
        turn: &mut Turn,
        error: RegistryError,
    ) -> Result<(), RegistryError> {
        // Places may have been removed since `unasked` was counted.
        let is_last = turn.at + 1 + unasked >= self.places.len();
        // Errors of the mirrors are kept: "not found" from the registry would hide that a mirror
        // was down.
        if is_last || !self.places[turn.at].allows_fallback(&error) {
            return Err(error.after(&turn.passed));
        }
        tracing::debug!(%error, "a mirror did not return the object; trying the next place");
        if error.is_transient() {
            // The next place moves to this index. Otherwise each object would wait for the same
            // timeout again.
            self.places.remove(turn.at);
        } else {
            turn.at += 1;
        }
        turn.passed.push(error);
        Ok(())
    }

    pub fn what(&self, tag_or_digest: &str) -> String {
        self.places
            // Messages and trust refer to the name in the reference, whichever mirror answers.
            .last()
            .map_or_else(|| tag_or_digest.to_owned(), |registry| registry.what(tag_or_digest))
    }
}
