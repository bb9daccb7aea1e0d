//! Firmware in layers as image builders write them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// A layer with these files.
fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content).expect("written");
    }
    archive.into_inner().expect("written")
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("written")
}

fn file_of(layer: Vec<u8>) -> Result<Option<File>, AttemptFailure> {
    extract(layer, &"a.b/c:1".parse().expect("a reference"))
}

#[test]
fn the_file_below_firmware_is_read_from_a_layer_with_and_without_compression() {
    let long = format!("./firmware/{}.bin", "x".repeat(150));
    // Larger than the parts that are freed one by one.
    let content: Vec<u8> = (0_u32..700_000).flat_map(u32::to_le_bytes).collect();
    let tar = layer(&[("etc/other", b"other"), (&long, &content), ("firmware.txt", b"no")]);
    let (first, rest) = tar.split_at(1_000_000);
    let members = [compressed(first), compressed(rest)].concat();
    for layer in [compressed(&tar), members, tar] {
        let File { name, bytes } = file_of(layer).expect("read").expect("found");
        assert!(name.ends_with("x.bin"), "{name}");
        assert!(bytes == content, "{} bytes", bytes.len());
    }
}

#[test]
fn of_several_files_the_first_by_name_counts_and_markers_of_removed_ones_do_not() {
    let files: [(&str, &[u8]); 3] =
        [("firmware/b.bin", b"b"), ("firmware/a.bin", b"aa"), ("firmware/.wh.0.bin", b"")];
    let file = file_of(layer(&files)).expect("read").expect("found");
    assert_eq!(file, File { name: "firmware/a.bin".to_owned(), bytes: b"aa".to_vec() });
    assert_eq!(file_of(layer(&[("bin/sh", b"x")])).expect("read"), None);
}

#[test]
fn what_cannot_be_unpacked_is_refused_in_words() {
    let mut cut = compressed(&layer(&[("firmware/a.bin", &[7; 5000])]));
    cut.truncate(cut.len() / 2);
    let zeros = vec![0; LAYER_BYTES + 1];
    let other = compressed(&layer(&[("firmware/b.bin", &zeros), ("firmware/a.bin", b"aa")]));
    assert_eq!(file_of(other).expect("read").map(|file| file.bytes), Some(b"aa".to_vec()));
    let large = compressed(&layer(&[("firmware/a.bin", &zeros)]));
    for (layer, words) in [
        (cut, "cannot be unpacked"),
        (b"\x28\xb5\x2f\xfd".to_vec(), "Zstandard"),
        (large, "firmware/a.bin has 67108865 bytes; the limit is 67108864"),
    ] {
        let failure = file_of(layer).expect_err(words);
        assert_eq!(failure.code, Code::FirmwareUnavailable);
        assert!(failure.to_string().contains(words), "{failure}");
    }
}
