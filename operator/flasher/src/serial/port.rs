//! Serial port: opens it for this process exclusively, and restarts the chip connected to it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use espflash::Error;
use espflash::connection::{Connection, Port, ResetAfterOperation, ResetBeforeOperation};
use serialport::{ErrorKind, SerialPort, SerialPortType, UsbPortInfo};

use crate::arguments::{After, Before, Serial};
use crate::outcome::{AttemptFailure, Code};

/// Baud rate at which every ROM loader answers.
pub(super) const FIRST_BAUD: u32 = 115_200;
/// Timeout of one read; the library sets its own for each command.
const READ: Duration = Duration::from_secs(3);
/// Folder in which the kernel lists the ports of this machine.
const PORTS: &str = "/sys/class/tty";

/// Open port, and the way to restart its chip.
pub(super) struct Opened {
    pub port: Port,
    pub usb: UsbPortInfo,
    pub restart: Restart,
}

/// Opens the port.
///
/// # Errors
/// The port does not exist, is not accessible to this process, is in use, or is not a serial port.
pub(super) fn open(options: &Serial) -> Result<Opened, AttemptFailure> {
    let path = &options.port;
    let baud = FIRST_BAUD.min(options.baud);
    let port = serialport::new(path.to_string_lossy(), baud).timeout(READ).open_native();
    let mut port = port.map_err(|error| unusable(path, error))?;
    let usb = usb(path);
    let needs_lines = options.before != Before::NoReset || options.after != After::NoReset;
    // Pseudo terminals have no control lines, and a reset through them would silently do nothing.
    if needs_lines && let Err(error) = port.read_clear_to_send() {
        let message = format!(
            "the serial port {} has no control lines to restart the chip with; set --before \
             no-reset and --after no-reset, and restart the chip manually",
            path.display()
        );
        return Err(AttemptFailure::new(Code::BadConfiguration, message).because(error));
    }
    // A serial port is opened exclusively, so the second handle is a duplicate of the first.
    let second = match options.after {
        After::HardReset => Some(port.try_clone_native().map_err(|error| unusable(path, error))?),
        After::NoReset => None,
    };
    let restart = Restart { port: second, usb: usb.clone() };
    Ok(Opened { port, usb, restart })
}

/// Returns the failure for a port that cannot be opened.
pub(crate) fn unusable(path: &Path, error: serialport::Error) -> AttemptFailure {
    let name = path.display();
    let (code, words) = match error.kind() {
        ErrorKind::Io(std::io::ErrorKind::NotFound) => {
            (Code::DeviceUnreachable, "does not exist; is the device plugged in?".to_owned())
        }
        ErrorKind::Io(std::io::ErrorKind::PermissionDenied) => {
            let group = std::fs::metadata(path).map_or_else(
                |_| "its group".to_owned(),
                |about| format!("group {} (mode {:o})", about.gid(), about.mode() & 0o777),
            );
            let words = format!(
                "is not accessible to this process; add {group} to the Pod's supplementalGroups"
            );
            (Code::BadConfiguration, words)
        }
        // Error of the library for a port that another process has opened or locked.
        ErrorKind::NoDevice => (Code::DeviceBusy, "is in use by another process".to_owned()),
        _ => (Code::DeviceUnreachable, "cannot be opened as a serial port".to_owned()),
    };
    AttemptFailure::new(code, format!("the serial port {name} {words}")).because(error)
}

/// Returns the USB device of the port: its product number decides how to reset the chip. All zero
/// if the port is not a USB device, or is not listed by the kernel.
fn usb(path: &Path) -> UsbPortInfo {
    let none = UsbPortInfo {
        vid: 0,
        pid: 0,
        serial_number: None,
        manufacturer: None,
        product: None,
        interface: None,
    };
    // The library assumes that this folder exists.
    if !Path::new(PORTS).is_dir() {
        return none;
    }
    // udev names such as /dev/serial/by-id/… are links to the port that the kernel lists.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let ports = serialport::available_ports().unwrap_or_default();
    let listed_port = ports.into_iter().find(|port| Path::new(&port.port_name) == path);
    match listed_port.map(|port| port.port_type) {
        Some(SerialPortType::UsbPort(usb)) => usb,
        _ => none,
    }
}

/// Restarts the chip once, at the latest when dropped: a chip in its loader does not stay there
/// when the attempt ends early.
pub(super) struct Restart {
    /// Second handle of the same port, as the first one may still be in use; None if no restart is
    /// needed.
    port: Option<Port>,
    usb: UsbPortInfo,
}

impl Restart {
    /// Restarts the chip, within 200 ms.
    ///
    /// # Errors
    /// The port no longer exists.
    pub fn now(&mut self) -> Result<(), Error> {
        // Taking the handle makes a later call, such as the one on drop, do nothing.
        let Some(port) = self.port.take() else { return Ok(()) };
        let (before, after) = (ResetBeforeOperation::NoReset, ResetAfterOperation::HardReset);
        Connection::new(port, self.usb.clone(), after, before, FIRST_BAUD).reset()
    }
}

impl Drop for Restart {
    fn drop(&mut self) {
        if let Err(error) = self.now() {
            tracing::warn!(%error, "the chip cannot be restarted");
        }
    }
}
