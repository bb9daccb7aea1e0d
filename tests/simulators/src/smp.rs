//! A simulated device with MCUboot: an SMP server on UDP or on a serial port (Zephyr's
//! documentation, "SMP Protocol Specification" and its groups 0 and 1), two slots, and a boot
//! loader.

mod console;
mod image;
mod server;

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::terminal::Terminal;
pub use image::mcuboot_image;
pub use server::Behaviour;
use server::State;

/// Log line of a device that starts, on its console.
const BANNER: &[u8] = b"\r\n*** Booting Zephyr OS build v4.2.0 ***\r\n";

/// The device.
pub struct SmpDevice {
    /// Its address, or its serial port.
    pub place: String,
    state: Arc<Mutex<State>>,
    /// Of a device on a serial port.
    _cable: Option<OwnedFd>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SmpDevice {
    /// Switches a device on that runs this image, on a UDP port of this machine.
    ///
    /// # Errors
    /// No port is free.
    pub fn on_udp(image: Vec<u8>, behaviour: Behaviour) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let place = socket.local_addr()?.to_string();
        let state = Arc::new(Mutex::new(State::new(image, behaviour)));
        let own = state.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = lock(&own).answer(&buffer[..count]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { place, state, _cable: None })
    }

    /// The same on a serial port, on which it prints its log too.
    ///
    /// # Errors
    /// No terminal is to be had.
    pub fn on_serial_port(image: Vec<u8>, behaviour: Behaviour) -> anyhow::Result<Self> {
        let Terminal { port, mut device, cable } = Terminal::open()?;
        let state = Arc::new(Mutex::new(State::new(image, behaviour)));
        let own = state.clone();
        std::thread::spawn(move || {
            let mut decoder = console::Decoder::default();
            let mut buffer = [0; 4096];
            while let Ok(count) = device.read(&mut buffer) {
                for request in decoder.feed(&buffer[..count]) {
                    let (answer, restarted) = {
                        let mut state = lock(&own);
                        let before = state.resets;
                        (state.answer(&request), state.resets > before)
                    };
                    let mut said =
                        answer.map(|answer| console::encode(&answer)).unwrap_or_default();
                    if restarted {
                        said.extend(BANNER);
                    }
                    if device.write_all(&said).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { place: port, state, _cable: Some(cable) })
    }

    /// Version of the image that runs.
    #[must_use]
    pub fn runs(&self) -> String {
        lock(&self.state).runs()
    }

    /// Returns true if the image that runs stays at the next restart.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        lock(&self.state).confirmed
    }

    /// Restarts so far.
    #[must_use]
    pub fn resets(&self) -> u32 {
        lock(&self.state).resets
    }

    /// Bytes of the last upload that it has.
    #[must_use]
    pub fn uploaded(&self) -> usize {
        lock(&self.state).upload.len()
    }

    /// Requests so far, those that it did not answer among them.
    #[must_use]
    pub fn requests(&self) -> u32 {
        lock(&self.state).requests
    }

    /// Has a device answer again that stopped to.
    pub fn go_on(&self) {
        lock(&self.state).go_on();
    }

    /// Takes its power away and gives it back.
    pub fn reset(&self) {
        lock(&self.state).reset();
    }
}
