//! The SMP server of a device with two slots, and its bootloader. No I/O.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ciborium::Value;
use sha2::{Digest, Sha256};

use super::image::read;

/// Maximum size of a request, in bytes.
const BUFFER: u64 = 512;
/// Time for which a restarting device does not answer.
const RESTART: Duration = Duration::from_millis(400);
/// Error codes of the protocol: unknown error, and invalid argument.
const EUNKNOWN: i64 = 1;
const EINVAL: i64 = 3;

/// Fields of a request or an answer.
type Fields = BTreeMap<String, Value>;

/// Misbehaviour of a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// Its bootloader does not swap to the new image.
    pub reverts: bool,
    /// It does not answer after a restart into a new image, until it is told to continue or
    /// restarts.
    pub never_back: bool,
    /// It refuses uploads.
    pub refuses: bool,
    /// It loses every fifth request.
    pub lossy: bool,
    /// It restarts at once, without an answer to the request.
    pub mute_reset: bool,
    /// It stops answering at this many bytes of an upload, until it is told to continue.
    pub stops_at: Option<usize>,
    /// Its two slots are those of image 1; image 0 is an application that is never updated.
    pub has_application: bool,
}

/// State of a device.
#[derive(Default)]
pub(super) struct State {
    behaviour: Behaviour,
    /// The running image, and the other one.
    slots: [Vec<u8>; 2],
    pub confirmed: bool,
    /// True if the other image is tried at the next restart.
    pending: bool,
    pub upload: Vec<u8>,
    length: usize,
    sha: Vec<u8>,
    pub resets: u32,
    silent_until: Option<Instant>,
    /// True if it runs, but does not answer.
    lost: bool,
    pub requests: u32,
}

impl State {
    pub fn new(image: Vec<u8>, behaviour: Behaviour) -> Self {
        Self { behaviour, slots: [image, Vec::new()], confirmed: true, ..Self::default() }
    }

    pub fn runs(&self) -> String {
        read(&self.slots[0]).map(|(version, _)| version).unwrap_or_default()
    }

    pub fn go_on(&mut self) {
        self.lost = false;
        self.behaviour.stops_at = None;
    }

    /// Restarts the device, and swaps images as MCUboot does.
    pub fn reset(&mut self) {
        let behaviour = self.behaviour;
        self.resets += 1;
        self.silent_until = Some(Instant::now() + RESTART);
        if self.pending {
            self.pending = false;
            if !behaviour.reverts {
                self.slots.swap(0, 1);
                self.confirmed = false;
                self.lost = behaviour.never_back;
            }
        } else if !self.confirmed {
            self.slots.swap(0, 1);
            self.confirmed = true;
            self.lost = false;
        }
    }

    /// Answers a request, unless it is lost.
    pub fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let behaviour = self.behaviour;
        self.requests += 1;
        let is_silent = self.silent_until.is_some_and(|until| Instant::now() < until);
        let has_stopped = behaviour.stops_at.is_some_and(|bytes| self.upload.len() >= bytes);
        let is_lost = behaviour.lossy && self.requests.is_multiple_of(5);
        if self.lost || is_silent || has_stopped || is_lost {
            return None;
        }
        let (header, body) = frame.split_at_checked(8)?;
        let request: Fields = ciborium::from_reader(body).unwrap_or_default();
        let group = u16::from_be_bytes([header[4], header[5]]);
        let is_write = header[0] & 7 == 2;
        let answered = match (group, header[7], is_write) {
            (0, 5, true) => {
                self.reset();
                if behaviour.mute_reset {
                    return None;
                }
                Ok(Fields::new())
            }
            (0, 6, false) => Ok(Fields::from([
                ("buf_size".to_owned(), Value::from(BUFFER)),
                ("buf_count".to_owned(), Value::from(4)),
            ])),
            (1, 0, false) => Ok(self.images()),
            (1, 0, true) => self.set(&request),
            (1, 1, true) if behaviour.refuses => Err(EUNKNOWN),
            (1, 1, true) => self.take(&request),
            _ => Err(8),
        };
        let fields =
            answered.unwrap_or_else(|code| Fields::from([("rc".to_owned(), Value::from(code))]));
        let mut bytes = Vec::new();
        ciborium::into_writer(&fields, &mut bytes).ok()?;
        let mut answer = header.to_vec();
        answer[0] = header[0] + 1;
        answer[2..4].copy_from_slice(&u16::try_from(bytes.len()).ok()?.to_be_bytes());
        answer.extend(bytes);
        Some(answer)
    }

    fn images(&self) -> Fields {
        let slot = |number: usize, image: &Vec<u8>| {
            let (version, hash) = read(image)?;
            let fields = [
                ("image", Value::from(u64::from(self.behaviour.has_application))),
                ("slot", Value::from(number as u64)),
                ("version", Value::from(version)),
                ("hash", Value::Bytes(hash)),
                ("bootable", Value::from(true)),
                ("pending", Value::from(number == 1 && self.pending)),
                ("confirmed", Value::from(number == 0 && self.confirmed)),
                ("active", Value::from(number == 0)),
                ("permanent", Value::from(false)),
            ];
            Some(Value::Map(
                fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect(),
            ))
        };
        let slots = self.slots.iter().enumerate();
        let images = slots.filter_map(|(number, image)| slot(number, image));
        let application = self.behaviour.has_application.then(application);
        let images = application.into_iter().chain(images).collect();
        Fields::from([("images".to_owned(), Value::Array(images))])
    }

    /// Marks an image for a test boot, or as confirmed.
    fn set(&mut self, request: &Fields) -> Result<Fields, i64> {
        let confirm = request.get("confirm").and_then(Value::as_bool).unwrap_or_default();
        let hash = request.get("hash").and_then(Value::as_bytes);
        let is_in = |slot: &Vec<u8>, hash: &Vec<u8>| {
            read(slot).is_some_and(|(_, image_hash)| image_hash == *hash)
        };
        match (hash, confirm) {
            // Without a hash the running application is meant, which is image 0.
            (None, true) if self.behaviour.has_application => {}
            (None, true) => self.confirmed = true,
            (Some(hash), true) if is_in(&self.slots[0], hash) => self.confirmed = true,
            (Some(hash), false) if is_in(&self.slots[1], hash) => self.pending = true,
            _ => return Err(EINVAL),
        }
        Ok(self.images())
    }

    /// Stores a part of an upload.
    fn take(&mut self, request: &Fields) -> Result<Fields, i64> {
        let number = |name: &str| {
            let number = request.get(name)?.as_integer()?;
            usize::try_from(number).ok()
        };
        let offset = number("off").ok_or(EINVAL)?;
        let data = request.get("data").and_then(Value::as_bytes).ok_or(EINVAL)?;
        if offset == 0 {
            self.length = number("len").ok_or(EINVAL)?;
            self.sha = request.get("sha").and_then(Value::as_bytes).cloned().unwrap_or_default();
            self.upload.clear();
        }
        // A duplicate part, sent again because its answer was lost, is stored once.
        if offset == self.upload.len() {
            self.upload.extend_from_slice(data);
        }
        let mut answer = Fields::from([("off".to_owned(), Value::from(self.upload.len() as u64))]);
        if self.upload.len() == self.length {
            let is_good = Sha256::digest(&self.upload)[..] == self.sha[..];
            answer.insert("match".to_owned(), Value::from(is_good));
            self.slots[1].clone_from(&self.upload);
        }
        Ok(answer)
    }
}

/// Returns the state of an application that runs as image 0, and is confirmed.
fn application() -> Value {
    let fields = [
        ("image", Value::from(0)),
        ("slot", Value::from(0)),
        ("version", Value::from("9.0.0")),
        ("hash", Value::Bytes(vec![9; 32])),
        ("bootable", Value::from(true)),
        ("confirmed", Value::from(true)),
        ("active", Value::from(true)),
    ];
    Value::Map(fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect())
}
