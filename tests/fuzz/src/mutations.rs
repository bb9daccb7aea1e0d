//! Mutates bytes as a fuzzer does, but deterministically.

/// Words that are significant to the fuzzed parsers.
const WORDS: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"\"",
    b"{",
    b"[",
    b"[[[[[[[[",
    b"*",
    b"@sha256:",
    b"://",
    b":",
    b"..",
    b"\n\n",
    b"-1",
    b"18446744073709551616",
    b"null",
    b"%00",
];

/// An endless series of mutated inputs.
pub struct Mutations {
    state: u64,
}

impl Mutations {
    /// Returns the series for a seed; the same seed gives the same series.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed | 1 }
    }

    /// Returns a pseudo-random number below `end` (xorshift64*, by Vigna), random enough for this
    /// purpose.
    fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap_or_default() % end.max(1)
    }

    /// Returns one of the inputs, changed in one to four places.
    pub fn next(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, inputs);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(16)).min(bytes.len());
        match self.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap_or_default(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            5 => {
                let other = &inputs[self.below(inputs.len())];
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => {
                let word = WORDS[self.below(WORDS.len())];
                drop(bytes.splice(at..at, word.iter().copied()));
            }
        }
    }
}
