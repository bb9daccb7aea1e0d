//! A simulated device with MCUboot: an SMP server on UDP or on a serial port (Zephyr's
//! documentation, "SMP Protocol Specification" and its groups 0 and 1), two slots, and a
//! bootloader.

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

/// Log line that a starting device prints on its console.
const BANNER: &[u8] = b"\r\n*** Booting Zephyr OS build v4.2.0 ***\r\n";

/// A running device.
pub struct SmpDevice {
    /// Its UDP address, or the path of its serial port.
    pub place: String,
    state: Arc<Mutex<State>>,
    /// Cable of a device on a serial port.
    _cable: Option<OwnedFd>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SmpDevice {
    /// Switches on a device with this image, on a UDP port of this machine.
    ///
    /// # Errors
    /// No port is free.
    pub fn on_udp(image: Vec<u8>, behaviour: Behaviour) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let place = socket.local_addr()?.to_string();
        let state = Arc::new(Mutex::new(State::new(image, behaviour)));
        let device_state = state.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                if let Some(answer) = lock(&device_state).answer(&buffer[..count]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { place, state, _cable: None })
    }

    /// Switches on a device with this image, on a serial port on which it also prints its log.
    ///
    /// # Errors
    /// No pseudo-terminal is available.
    pub fn on_serial_port(image: Vec<u8>, behaviour: Behaviour) -> anyhow::Result<Self> {
        let Terminal { port, mut device, cable } = Terminal::open()?;
        let state = Arc::new(Mutex::new(State::new(image, behaviour)));
        let device_state = state.clone();
        std::thread::spawn(move || {
            let mut decoder = console::Decoder::default();
            let mut buffer = [0; 4096];
            while let Ok(count) = device.read(&mut buffer) {
                for request in decoder.feed(&buffer[..count]) {
                    let (answer, restarted) = {
                        let mut state = lock(&device_state);
                        let before = state.resets;
                        (state.answer(&request), state.resets > before)
                    };
                    let mut output =
                        answer.map(|answer| console::encode(&answer)).unwrap_or_default();
                    if restarted {
                        output.extend(BANNER);
                    }
                    if device.write_all(&output).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { place: port, state, _cable: Some(cable) })
    }

    /// Returns the version of the running image.
    #[must_use]
    pub fn runs(&self) -> String {
        lock(&self.state).runs()
    }

    /// Returns true if the running image stays after the next restart.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        lock(&self.state).confirmed
    }

    /// Returns the number of restarts so far.
    #[must_use]
    pub fn resets(&self) -> u32 {
        lock(&self.state).resets
    }

    /// Returns the number of bytes of the last upload that it has received.
    #[must_use]
    pub fn uploaded(&self) -> usize {
        lock(&self.state).upload.len()
    }

    /// Returns the number of requests so far, including those that it did not answer.
    #[must_use]
    pub fn requests(&self) -> u32 {
        lock(&self.state).requests
    }

    /// Lets a device that stopped answering continue.
    pub fn go_on(&self) {
        lock(&self.state).go_on();
    }

    /// Power-cycles the device.
    pub fn reset(&self) {
        lock(&self.state).reset();
    }
}
