//! The program in the simulated serial flash image: takes esptool's command line and speaks the ROM
//! loader's protocol, as esptool does with --no-stub. The environment variable SIMULATED_IMAGE
//! names the folder that stands for the image's root.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use flashjob_simulators::process;
use flashjob_simulators::serial::loader::{checksum, command, hexadecimal, request};
use flashjob_simulators::serial::slip;
use md5::{Digest, Md5};
use rustix::termios::{OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

/// Bytes in one block, as the ROM takes them.
const BLOCK_BYTES: usize = 0x400;
/// Longest time for which the chip may be silent, in tenths of a second.
const SILENCE: u8 = 30;
/// Looks for a chip before it is given up.
const CONNECTS: usize = 3;

#[derive(Parser)]
struct Arguments {
    /// End when standard input does.
    #[arg(long)]
    exit_with_stdin: bool,
    #[arg(long)]
    chip: String,
    #[arg(long)]
    port: PathBuf,
    #[arg(long)]
    baud: u32,
    #[arg(long, value_parser = ["default-reset", "no-reset"])]
    before: String,
    #[arg(long, value_parser = ["hard-reset", "no-reset"])]
    after: String,
    #[command(subcommand)]
    operation: Operation,
}

#[derive(clap::Subcommand)]
enum Operation {
    WriteFlash {
        #[arg(long, value_parser = ["keep"])]
        flash_mode: String,
        #[arg(long, value_parser = ["keep"])]
        flash_size: String,
        #[arg(value_parser = address)]
        address: u32,
        file: PathBuf,
    },
}

fn address(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").ok_or("expected a hexadecimal address, as 0x10000")?;
    u32::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    process::prepare();
    // A wrong command line ends here, with the code that esptool ends with then.
    let arguments = Arguments::parse();
    if arguments.exit_with_stdin {
        process::end_with_stdin();
    }
    let Err(error) = flash(&arguments) else { return ExitCode::SUCCESS };
    println!("\nA fatal error occurred: {error:#}");
    ExitCode::from(2)
}

fn flash(arguments: &Arguments) -> anyhow::Result<()> {
    let Operation::WriteFlash { address, file, .. } = &arguments.operation;
    let root = PathBuf::from(std::env::var_os("SIMULATED_IMAGE").unwrap_or_else(|| "/".into()));
    let path = root.join(file.strip_prefix("/").unwrap_or(file));
    let mut image =
        std::fs::read(&path).with_context(|| format!("cannot read {}", file.display()))?;
    image.resize(image.len().next_multiple_of(4), 0xff);
    let mut port = Port::open(arguments)?;
    port.connect()?;
    println!("Connected to {} on {}", arguments.chip, arguments.port.display());
    port.order(command::SPI_ATTACH, &[0, 0], &[])?;
    port.order(command::SPI_SET_PARAMS, &[0, 4 << 20, 64 << 10, 4 << 10, 256, 0xffff], &[])?;
    port.order(command::CHANGE_BAUDRATE, &[arguments.baud, 0], &[])?;
    let blocks: Vec<&[u8]> = image.chunks(BLOCK_BYTES).collect();
    let length = u32::try_from(image.len())?;
    port.order(
        command::FLASH_BEGIN,
        &[length, u32::try_from(blocks.len())?, u32::try_from(BLOCK_BYTES)?, *address],
        &[],
    )?;
    for (number, block) in blocks.iter().enumerate() {
        let mut block = block.to_vec();
        block.resize(BLOCK_BYTES, 0xff);
        port.order(
            command::FLASH_DATA,
            &[u32::try_from(BLOCK_BYTES)?, u32::try_from(number)?, 0, 0],
            &block,
        )?;
    }
    let hash = port.order(command::SPI_FLASH_MD5, &[*address, length, 0, 0], &[])?;
    ensure!(
        hash == hexadecimal(&Md5::digest(&image)).into_bytes(),
        "MD5 of file does not match data in flash"
    );
    println!("Hash of data verified.");
    Ok(())
}

struct Port {
    terminal: File,
    decoder: slip::Decoder,
    frames: std::collections::VecDeque<Vec<u8>>,
}

impl Port {
    /// Opens the port for this process alone, as esptool does.
    fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let name = arguments.port.display();
        let terminal = File::options()
            .read(true)
            .write(true)
            .open(&arguments.port)
            .with_context(|| format!("could not open {name}"))?;
        terminal.try_lock().with_context(|| format!("could not exclusively lock port {name}"))?;
        let mut raw =
            tcgetattr(&terminal).with_context(|| format!("{name} is not a serial port"))?;
        raw.make_raw();
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = SILENCE;
        tcsetattr(&terminal, OptionalActions::Flush, &raw)?;
        Ok(Self {
            terminal,
            decoder: slip::Decoder::default(),
            frames: std::collections::VecDeque::new(),
        })
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        let words: Vec<u8> = [0x07, 0x07, 0x12, 0x20].into_iter().chain([0x55; 32]).collect();
        for _ in 0..CONNECTS {
            self.terminal.write_all(&slip::encode(&request(command::SYNC, &words, 0)))?;
            if self.answer(command::SYNC).is_ok() {
                return Ok(());
            }
        }
        bail!("Failed to connect to Espressif device: No serial data received.")
    }

    /// Sends a command, and returns what the chip answers beyond its success.
    fn order(&mut self, command: u8, words: &[u32], block: &[u8]) -> anyhow::Result<Vec<u8>> {
        let data: Vec<u8> =
            words.iter().flat_map(|word| word.to_le_bytes()).chain(block.iter().copied()).collect();
        self.terminal.write_all(&slip::encode(&request(command, &data, checksum(block))))?;
        let answer = self.answer(command)?;
        let (payload, status) = answer.split_at(answer.len().saturating_sub(4));
        ensure!(
            status.first() == Some(&0),
            "command {command:#04x} failed with error {:?}",
            status.get(1)
        );
        Ok(payload.to_vec())
    }

    /// The next answer to this command; further answers to an earlier one are passed over.
    fn answer(&mut self, command: u8) -> anyhow::Result<Vec<u8>> {
        loop {
            while let Some(frame) = self.frames.pop_front() {
                if frame.len() >= 8 && frame[..2] == [1, command] {
                    return Ok(frame[8..].to_vec());
                }
            }
            let mut bytes = [0; 4096];
            let count = self.terminal.read(&mut bytes)?;
            ensure!(count > 0, "the chip stopped responding");
            self.frames.extend(self.decoder.feed(&bytes[..count]));
        }
    }
}
