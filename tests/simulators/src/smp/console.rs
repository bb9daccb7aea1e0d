//! SMP frames on a serial port that is also a console (Zephyr's documentation, "SMP over
//! console"): lines of Base64, between which the device may print its log.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_16_XMODEM, Crc};

/// First bytes of a line that begins a packet, and of one that continues it.
const BEGIN: [u8; 2] = [6, 9];
const GO_ON: [u8; 2] = [4, 20];
/// Bytes of a packet in one line of at most 127 characters.
const LINE_BYTES: usize = 93;
/// Maximum length of a line that is read, in characters.
const LINE_LIMIT: usize = 128;
const CHECKSUM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// Decodes packets from the received characters.
#[derive(Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    packet: Vec<u8>,
}

impl Decoder {
    /// Consumes characters, and returns the requests that they complete. Like Zephyr, drops
    /// characters outside a packet, and packets with a wrong checksum.
    pub fn feed(&mut self, characters: &[u8]) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        for character in characters {
            if *character != b'\n' {
                self.line.push(*character);
                self.line.truncate(LINE_LIMIT);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            requests.extend(self.take(&line));
        }
        requests
    }

    fn take(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let (mark, text) = line.split_at_checked(2)?;
        if mark == BEGIN {
            self.packet.clear();
        } else if mark != GO_ON || self.packet.is_empty() {
            return None;
        }
        self.packet.extend(STANDARD.decode(text).ok()?);
        let (length, rest) = self.packet.split_first_chunk::<2>()?;
        if rest.len() < usize::from(u16::from_be_bytes(*length)) {
            return None;
        }
        let (request, checksum) = rest.split_last_chunk::<2>()?;
        let is_good = CHECKSUM.checksum(request) == u16::from_be_bytes(*checksum);
        let request = is_good.then(|| request.to_vec());
        self.packet.clear();
        request
    }
}

/// Encodes an answer as lines.
pub(super) fn encode(answer: &[u8]) -> Vec<u8> {
    let length = u16::try_from(answer.len() + 2).unwrap_or(u16::MAX).to_be_bytes();
    let checksum = CHECKSUM.checksum(answer).to_be_bytes();
    let packet = [&length, answer, &checksum].concat();
    let mut lines = Vec::new();
    for (index, part) in packet.chunks(LINE_BYTES).enumerate() {
        lines.extend(if index == 0 { BEGIN } else { GO_ON });
        lines.extend(STANDARD.encode(part).into_bytes());
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_over_several_lines_is_read_between_a_log_and_one_that_is_broken_is_dropped() {
        let request: Vec<u8> = (0..=u8::MAX).cycle().take(400).collect();
        let mut lines = encode(&request);
        assert!(lines.split(|byte| *byte == b'\n').all(|line| line.len() < 127));
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"*** Booting Zephyr OS ***\r\n\n"), Vec::<Vec<u8>>::new());
        assert_eq!(decoder.feed(&lines), vec![request.clone()]);
        lines[10] ^= 1;
        assert_eq!(decoder.feed(&lines), Vec::<Vec<u8>>::new());
        assert_eq!(decoder.feed(&encode(&request)), vec![request]);
    }
}
