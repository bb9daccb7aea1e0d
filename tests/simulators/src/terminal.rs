//! A pseudo-terminal in place of a serial port and its cable.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// A serial port, and the device's end of its cable.
pub struct Terminal {
    /// Path of the node's end, such as `/dev/pts/3`.
    pub port: String,
    /// The device's end.
    pub device: File,
    /// The node's end, held open: a terminal that no process holds open would report an error to
    /// the device.
    pub cable: OwnedFd,
}

impl Terminal {
    /// Opens a pseudo-terminal in raw mode, which changes no byte.
    ///
    /// # Errors
    /// No pseudo-terminal is available.
    pub fn open() -> anyhow::Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .context("cannot open a pseudo-terminal")?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let port = ptsname(&controller, Vec::new())?
            .into_string()
            .context("the name of a pseudo-terminal")?;
        let cable = rustix::fs::open(port.as_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        let mut raw = tcgetattr(&cable)?;
        raw.make_raw();
        tcsetattr(&cable, OptionalActions::Now, &raw)?;
        Ok(Self { port, device: File::from(controller), cable })
    }
}
