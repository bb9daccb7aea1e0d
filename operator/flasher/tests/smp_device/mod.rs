//! A simulated device with MCUboot: an SMP server on UDP (Zephyr's documentation, "SMP Protocol
//! Specification" and its groups 0 and 1), two slots, and a boot loader.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ciborium::Value;
use sha2::{Digest, Sha256};

/// The first bytes of an image (MCUboot's documentation, "Image format").
const MAGIC: u32 = 0x96f3_b83d;
const HEADER_BYTES: u16 = 32;
const TLV_MAGIC: u16 = 0x6907;
const TLV_SHA256: u16 = 0x10;
/// Largest request that the device takes, in bytes.
const BUFFER: u64 = 512;
/// Time for which a device that restarts does not answer.
const RESTART: Duration = Duration::from_millis(400);
/// Errors of the protocol: something is wrong with a request, or its arguments.
const EUNKNOWN: i64 = 1;
const EINVAL: i64 = 3;

/// An image of this version, as imgtool makes it: a header, a body, and the hash of both.
pub fn mcuboot_image(version: [u8; 3], size: usize) -> Vec<u8> {
    let mut image = Vec::new();
    image.extend(MAGIC.to_le_bytes());
    image.extend(0_u32.to_le_bytes());
    image.extend(HEADER_BYTES.to_le_bytes());
    image.extend(0_u16.to_le_bytes());
    image.extend(u32::try_from(size).expect("small").to_le_bytes());
    image.extend(0_u32.to_le_bytes());
    image.extend([version[0], version[1]]);
    image.extend(u16::from(version[2]).to_le_bytes());
    image.extend([0; 8]);
    image.extend((0..size).map(|at| (at % 251) as u8 ^ version[0]));
    let hash = Sha256::digest(&image);
    image.extend(TLV_MAGIC.to_le_bytes());
    image.extend(40_u16.to_le_bytes());
    image.extend(TLV_SHA256.to_le_bytes());
    image.extend(32_u16.to_le_bytes());
    image.extend(hash);
    image
}

/// Version and hash of an image whose hash is right.
fn read(image: &[u8]) -> Option<(String, Vec<u8>)> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    let size = usize::try_from(number(12)?).ok()? + usize::from(HEADER_BYTES);
    let hash = image.get(size + 8..size + 40)?;
    let is_good = number(0)? == MAGIC && Sha256::digest(image.get(..size)?)[..] == *hash;
    let revision = u16::from_le_bytes([image[22], image[23]]);
    is_good.then(|| (format!("{}.{}.{revision}", image[20], image[21]), hash.to_vec()))
}

/// Ways in which a device misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// Its boot loader does not take the new image.
    pub reverts: bool,
    /// It never answers again after a restart into a new image.
    pub never_back: bool,
    /// It refuses uploads.
    pub refuses: bool,
    /// It loses every fifth request.
    pub lossy: bool,
}

#[derive(Default)]
struct State {
    /// The image that runs, and the other one.
    slots: [Vec<u8>; 2],
    confirmed: bool,
    /// The other image is tried at the next restart.
    pending: bool,
    /// Image that was active before a trial.
    upload: Vec<u8>,
    length: usize,
    sha: Vec<u8>,
    resets: u32,
    silent_until: Option<Instant>,
    lost: bool,
    requests: u32,
}

/// The device.
pub struct SmpDevice {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    behaviour: Behaviour,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SmpDevice {
    pub fn start(image: Vec<u8>, behaviour: Behaviour) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        let state = State { slots: [image, Vec::new()], confirmed: true, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let own = state.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = lock(&own).answer(&buffer[..count], behaviour) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, state, behaviour }
    }

    pub fn runs(&self) -> String {
        read(&lock(&self.state).slots[0]).expect("an image").0
    }

    pub fn is_confirmed(&self) -> bool {
        lock(&self.state).confirmed
    }

    pub fn resets(&self) -> u32 {
        lock(&self.state).resets
    }

    /// Takes its power away and gives it back.
    pub fn reset(&self) {
        lock(&self.state).reset(self.behaviour);
    }
}

impl State {
    /// A restart, as MCUboot swaps images.
    fn reset(&mut self, behaviour: Behaviour) {
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

    fn answer(&mut self, frame: &[u8], behaviour: Behaviour) -> Option<Vec<u8>> {
        self.requests += 1;
        let is_silent = self.silent_until.is_some_and(|until| Instant::now() < until);
        if self.lost || is_silent || behaviour.lossy && self.requests.is_multiple_of(5) {
            return None;
        }
        let (header, body) = frame.split_at_checked(8)?;
        let request: BTreeMap<String, Value> = ciborium::from_reader(body).unwrap_or_default();
        let group = u16::from_be_bytes([header[4], header[5]]);
        let is_write = header[0] & 7 == 2;
        let answered = match (group, header[7], is_write) {
            (0, 5, true) => {
                self.reset(behaviour);
                Ok(BTreeMap::new())
            }
            (0, 6, false) => Ok(BTreeMap::from([
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
            answered.unwrap_or_else(|code| BTreeMap::from([("rc".to_owned(), Value::from(code))]));
        let mut bytes = Vec::new();
        ciborium::into_writer(&fields, &mut bytes).expect("written");
        let mut answer = header.to_vec();
        answer[0] = header[0] + 1;
        answer[2..4].copy_from_slice(&u16::try_from(bytes.len()).expect("small").to_be_bytes());
        answer.extend(bytes);
        Some(answer)
    }

    fn images(&self) -> BTreeMap<String, Value> {
        let slot = |number: usize, image: &Vec<u8>| {
            let (version, hash) = read(image)?;
            let fields = [
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
        let images = slots.filter_map(|(number, image)| slot(number, image)).collect();
        BTreeMap::from([("images".to_owned(), Value::Array(images))])
    }

    /// Marks an image for a trial, or as one that stays.
    fn set(&mut self, request: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, i64> {
        let confirm = request.get("confirm").and_then(Value::as_bool).unwrap_or_default();
        let hash = request.get("hash").and_then(Value::as_bytes);
        match (hash, confirm) {
            (None, true) => self.confirmed = true,
            (Some(hash), false) if read(&self.slots[1]).is_some_and(|(_, own)| own == *hash) => {
                self.pending = true;
            }
            _ => return Err(EINVAL),
        }
        Ok(self.images())
    }

    /// Takes a part of an upload.
    fn take(&mut self, request: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, i64> {
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
        // A part that comes twice, as its answer was lost, is taken once.
        if offset == self.upload.len() {
            self.upload.extend_from_slice(data);
        }
        let mut answer =
            BTreeMap::from([("off".to_owned(), Value::from(self.upload.len() as u64))]);
        if self.upload.len() == self.length {
            let is_good = Sha256::digest(&self.upload)[..] == self.sha[..];
            answer.insert("match".to_owned(), Value::from(is_good));
            self.slots[1].clone_from(&self.upload);
        }
        Ok(answer)
    }
}
