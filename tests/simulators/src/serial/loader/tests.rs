//! Tests of the loader, frame by frame.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use md5::{Digest, Md5};
use sha2::Sha256;

use super::*;

fn say(loader: &mut Loader, command: u8, words: &[u32], block: &[u8]) -> Vec<u8> {
    let data: Vec<u8> =
        words.iter().flat_map(|word| word.to_le_bytes()).chain(block.iter().copied()).collect();
    loader.answer(&request(command, &data, checksum(block))).remove(0)
}

fn succeeded(answer: &[u8]) -> bool {
    answer[answer.len() - 4] == 0
}

fn with_stub() -> Loader {
    let mut loader = Loader::default();
    assert!(succeeded(&say(&mut loader, command::MEM_BEGIN, &[4, 1, 4, 0x4000_0000], &[])));
    assert!(succeeded(&say(&mut loader, command::MEM_DATA, &[4, 0, 0, 0], b"stub")));
    let data: Vec<u8> = [0, 0x4000_0000_u32].iter().flat_map(|word| word.to_le_bytes()).collect();
    let answers = loader.answer(&request(command::MEM_END, &data, 0));
    assert_eq!((answers[0].len(), answers[1].as_slice()), (12, STUB_RUNS));
    loader
}

#[test]
fn what_is_written_whole_and_hashed_counts_as_flashed() {
    let mut loader = Loader::default();
    assert!(succeeded(&say(&mut loader, command::FLASH_BEGIN, &[6, 2, 4, 0x1000], &[])));
    assert!(succeeded(&say(&mut loader, command::FLASH_DATA, &[4, 0, 0, 0], b"firm")));
    assert!(succeeded(&say(&mut loader, command::SPI_FLASH_MD5, &[0x1000, 6, 0, 0], &[])));
    assert_eq!(loader.report().flashed, 0);
    assert!(succeeded(&say(&mut loader, command::FLASH_DATA, &[4, 1, 0, 0], b"wa\xff\xff")));
    let answer = say(&mut loader, command::SPI_FLASH_MD5, &[0x1000, 6, 0, 0], &[]);
    assert_eq!(&answer[8..40], hexadecimal(&Md5::digest(b"firmwa")).as_bytes());
    let report = loader.report();
    assert_eq!((report.flashed, report.begun, report.conflicts), (1, 1, 0));
    assert_eq!(report.sha256, hexadecimal(&Sha256::digest(b"firmwa")));
}

#[test]
fn a_second_flasher_and_a_broken_block_are_noticed() {
    let mut loader = Loader::default();
    for _ in 0..2 {
        assert!(succeeded(&say(&mut loader, command::FLASH_BEGIN, &[4, 1, 4, 0], &[])));
    }
    let broken = [4u32, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .chain(*b"firm")
        .collect::<Vec<u8>>();
    let answer = loader.answer(&request(command::FLASH_DATA, &broken, 1)).remove(0);
    assert_eq!(&answer[8..], [1, BAD_CHECKSUM, 0, 0]);
    assert!(!succeeded(&say(&mut loader, command::FLASH_BEGIN, &[u32::MAX, 1, 4, 0], &[])));
    assert_eq!((loader.report().conflicts, loader.report().refused), (1, 1));
}

#[test]
fn a_stub_takes_compressed_blocks_and_answers_in_its_own_form() {
    let mut loader = with_stub();
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&[7; 5000]).expect("compressed");
    let compressed = encoder.finish().expect("compressed");
    let length = u32::try_from(compressed.len()).expect("short");
    let answer = say(&mut loader, command::FLASH_DEFL_BEGIN, &[5000, 1, 0x4000, 0], &[]);
    assert_eq!(answer[8..], [0, 0]);
    say(&mut loader, command::FLASH_DEFL_DATA, &[length, 0, 0, 0], &compressed);
    let answer = say(&mut loader, command::SPI_FLASH_MD5, &[0, 5000, 0, 0], &[]);
    assert_eq!(answer[8..], [Md5::digest([7; 5000]).as_slice(), &[0, 0]].concat());
    assert_eq!((loader.report().flashed, loader.content(4999, 2)), (1, vec![7, 0xff]));
    let answer = say(&mut loader, command::FLASH_DEFL_DATA, &[4, 1, 0, 0], b"more");
    assert_eq!(answer[8], 1, "there is no write any more");
}

#[test]
fn the_flash_says_its_size_and_a_locked_chip_says_nothing_of_its_memory() {
    let mut loader = Loader::default();
    let spi = model::ESP32.spi;
    say(&mut loader, command::WRITE_REG, &[spi.user2, 7 << 28 | 0x9f, u32::MAX, 0], &[]);
    say(&mut loader, command::WRITE_REG, &[spi.command, SPI_START, u32::MAX, 0], &[]);
    let answer = say(&mut loader, command::READ_REG, &[spi.data], &[]);
    assert_eq!(word(&answer, 1), Some(0x16_40ef));
    assert!(!succeeded(&say(&mut loader, command::GET_SECURITY_INFO, &[], &[])));
    let settings = Settings { model: model::ESP32C3, is_locked: true, ..Settings::default() };
    let mut loader = Loader::new(settings);
    let answer = say(&mut loader, command::GET_SECURITY_INFO, &[], &[]);
    assert_eq!((word(&answer, 2), word(&answer, 5)), (Some(SECURE_DOWNLOAD), Some(5)));
    assert!(!succeeded(&say(&mut loader, command::READ_REG, &[spi.data], &[])));
}
