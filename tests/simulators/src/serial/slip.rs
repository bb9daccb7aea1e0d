//! SLIP framing (RFC 1055), as the ESP ROM loader uses it. Bytes in, frames out. No I/O.

const END: u8 = 0xc0;
const ESCAPE: u8 = 0xdb;
const ESCAPED_END: u8 = 0xdc;
const ESCAPED_ESCAPE: u8 = 0xdd;

/// Encodes a frame for the wire.
#[must_use]
pub fn encode(frame: &[u8]) -> Vec<u8> {
    let mut wire = vec![END];
    for byte in frame {
        match *byte {
            END => wire.extend([ESCAPE, ESCAPED_END]),
            ESCAPE => wire.extend([ESCAPE, ESCAPED_ESCAPE]),
            byte => wire.push(byte),
        }
    }
    wire.push(END);
    wire
}

/// Assembles frames from pieces of any size.
#[derive(Default)]
pub struct Decoder {
    frame: Vec<u8>,
    escaped: bool,
}

impl Decoder {
    /// Consumes bytes, and returns the frames that they complete. Empty frames are only
    /// separators.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for byte in bytes {
            match (*byte, std::mem::take(&mut self.escaped)) {
                (END, _) if self.frame.is_empty() => {}
                (END, _) => frames.push(std::mem::take(&mut self.frame)),
                (ESCAPE, _) => self.escaped = true,
                (ESCAPED_END, true) => self.frame.push(END),
                (ESCAPED_ESCAPE, true) => self.frame.push(ESCAPE),
                (byte, _) => self.frame.push(byte),
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_wire_in_single_bytes() {
        let frame = [0, END, 1, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE, 255];
        let mut decoder = Decoder::default();
        let wire = [encode(&frame), encode(&frame)].concat();
        let frames: Vec<Vec<u8>> = wire.iter().flat_map(|byte| decoder.feed(&[*byte])).collect();
        assert_eq!(frames, [frame, frame]);
    }
}
