//! Tests with registries that have the firmware, have something else, or have untrusted firmware.

use std::time::Duration;

use crate::world::{Content, World, firmware, image, index};
use flashjob_artifacts::fake_registry::{Fake, answer};
use flashjob_artifacts::trust::testing::Keys;
use flashjob_artifacts::{Digest, Signature};
use flashjob_flasher::outcome::Code;
use flashjob_simulators::devices::Behaviour;
use serde_json::{Value, json};

/// Flashes from a registry with this content, and returns code and message of the failure.
async fn failure(host: &str, content: Content) -> (Code, String) {
    let world = World::with(host, None, Behaviour::default(), content).await;
    let failure = world.flash().await.expect_err("not flashed");
    assert_eq!(world.report().updates, 0, "the device is not asked: {failure}");
    (failure.code, failure.to_string())
}

/// Publishes an image without an index, under tag 1.
fn alone((descriptor, mut content): (Value, Content)) -> Content {
    let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
    let manifest = content.iter().find(|(end, _)| *end == digest).expect("a manifest").1.clone();
    content.push(("manifests/1".to_owned(), manifest));
    content
}

#[tokio::test]
async fn what_is_no_firmware_for_this_device_is_refused_before_the_device_is_asked() {
    let esp32 = || image("esp32", "firmware/a.bin", &firmware("2", 100));
    let s3 = || image("esp32s3", "firmware/a.bin", &firmware("2", 100));
    let mut changed = index(vec![esp32()]);
    for (_, bytes) in changed.iter_mut().filter(|(_, bytes)| bytes.starts_with(b"firmware")) {
        *bytes.last_mut().expect("not empty") ^= 1;
    }
    let cases = [
        ("127.78.1.1", Content::new(), Code::FirmwareUnavailable, "firmware/thermo:1"),
        ("127.78.1.2", index(vec![s3()]), Code::NoPlatform, "only for custom/esp32s3"),
        ("127.78.1.3", alone(s3()), Code::NoPlatform, "only for custom/esp32s3"),
        (
            "127.78.1.4",
            index(vec![image("esp32", "firmware/a.bin", b"")]),
            Code::FirmwareUnavailable,
            "is empty",
        ),
        (
            "127.78.1.5",
            index(vec![image("esp32", "bin/a.bin", b"x")]),
            Code::FirmwareUnavailable,
            "no file under /firmware",
        ),
        ("127.78.1.6", changed, Code::FirmwareUnavailable, "sha256:"),
        (
            "127.78.1.7",
            vec![("manifests/1".to_owned(), b"<html>".to_vec())],
            Code::FirmwareUnavailable,
            "manifest",
        ),
    ];
    for (host, content, code, words) in cases {
        let (found, message) = failure(host, content).await;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[tokio::test]
async fn an_image_that_is_no_index_and_one_named_by_its_digest_are_flashed() {
    let content = alone(image("ESP32", "firmware/a.bin", &firmware("2", 100)));
    let mut world = World::with("127.78.1.8", None, Behaviour::default(), content).await;
    world.flash().await.expect("flashed");
    let (descriptor, _) = image("ESP32", "firmware/a.bin", &firmware("2", 100));
    let digest = descriptor["digest"].as_str().expect("a digest");
    world.options.pull.firmware = format!("{}/firmware/thermo@{digest}", world.registry.host);
    world.becomes("flashed", |report| report.flashed == 1).await;
    let sent = world.flash().await.expect("flashed");
    assert!(sent.message.contains(digest), "{sent:?}");
}

#[tokio::test]
async fn a_registry_that_is_slow_ends_after_its_time_and_broken_access_is_never_anonymous() {
    let mut world = World::new("127.78.1.9", None, Behaviour::default()).await;
    let slow = Fake::start(|_, _, _| {
        std::thread::sleep(Duration::from_millis(300));
        answer(200, "{}")
    })
    .await;
    let policy = json!({"registries": [{"host": slow.host, "plainHttp": true}]});
    let file = world.folder.path().join("policy.yaml");
    std::fs::write(&file, policy.to_string()).expect("written");
    world.options.pull.firmware = format!("{}/firmware/thermo:1", slow.host);
    world.options.pull.firmware_timeout = Duration::from_millis(100);
    let failure = world.flash().await.expect_err("not there in time");
    assert_eq!(failure.code, Code::FirmwareUnavailable, "{failure}");
    assert!(failure.to_string().contains("within 100ms"), "{failure}");
    let entry = json!({"auths": {slow.host.clone(): {"auth": "!"}}}).to_string();
    for (name, text) in [
        ("config.json", entry.as_str()),
        (".dockerconfigjson", "{"),
        ("policy.yaml", "trust: 7"),
        ("policy.yaml", "registries: [{host: a.b, credentials: {secretName: c}}]"),
        ("policy.yaml", "trust: [{match: a.b}]"),
    ] {
        std::fs::write(&file, policy.to_string()).expect("written");
        let broken = world.folder.path().join(name);
        std::fs::write(&broken, text).expect("written");
        let failure = world.flash().await.expect_err("cannot be used");
        assert_eq!(failure.code, Code::BadConfiguration, "{name}: {failure}");
        assert!(failure.to_string().contains(name), "{name}: {failure}");
        std::fs::remove_file(broken).expect("removed");
    }
}

#[tokio::test]
async fn firmware_is_flashed_only_where_a_key_of_the_policy_signed_its_index_or_its_manifest() {
    let keys = Keys::new();
    let key = keys.folder.path().join("0.pub");
    let unsigned = || index(vec![image("esp32", "firmware/a.bin", &firmware("2", 100))]);
    let digest = |name: &str| {
        let content = unsigned();
        let top = &content.iter().find(|(end, _)| end == "manifests/1").expect("an index").1;
        match name {
            "index" => Digest::of(top),
            _ => {
                let index: Value = serde_json::from_slice(top).expect("an index");
                index["manifests"][0]["digest"].as_str().expect("one").parse().expect("a digest")
            }
        }
    };
    for (host, signer, signed, code) in [
        ("127.78.1.10", 0, "index", None),
        ("127.78.1.11", 0, "manifest", None),
        ("127.78.1.12", 1, "index", Some(Code::FirmwareNotTrusted)),
        ("127.78.1.13", 0, "nothing", Some(Code::FirmwareNotTrusted)),
    ] {
        let mut content = unsigned();
        if signed != "nothing" {
            sign(&mut content, &keys.simple(signer, &digest(signed)), &digest(signed));
        }
        let world = World::with(host, None, Behaviour::default(), content).await;
        let trust = json!([{
            "match": format!("{}/**", world.registry.host),
            "cosign": {"publicKeyFiles": [key], "forms": ["simple"]},
        }]);
        world.policy(&json!({"trust": trust}));
        let ended = world.flash().await;
        assert_eq!(ended.as_ref().err().map(|failure| failure.code), code, "{signed}: {ended:?}");
        assert_eq!(world.report().updates > 0, code.is_none(), "{signed}");
    }
    let world = World::with("127.78.1.14", None, Behaviour::default(), unsigned()).await;
    world.policy(&json!({"trust": [{"match": "harbor.example/**", "allowUnsigned": true}]}));
    let failure = world.flash().await.expect_err("nothing in the policy speaks of it");
    assert_eq!(failure.code, Code::FirmwareNotTrusted, "{failure}");
}

/// Puts a signature beside an image, as cosign does.
fn sign(content: &mut Content, signature: &Signature, digest: &Digest) {
    use base64::Engine as _;
    let Signature::Simple { payload, signature, .. } = signature else { panic!("of this form") };
    let payload = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
    let config = b"{}".to_vec();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config),
            "size": 2,
        },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": Digest::of(&payload), "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        }],
    });
    content.push((Digest::of(&payload).to_string(), payload));
    content.push((format!("manifests/sha256-{}.sig", digest.hex()), manifest.to_string().into()));
}

#[tokio::test]
async fn a_tag_is_what_it_is_when_it_is_flashed_and_the_message_has_the_digest() {
    let published = |version: &str| {
        let (descriptor, content) = image("esp32", "firmware/a.bin", &firmware(version, 100));
        let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
        (digest, index(vec![(descriptor, content)]))
    };
    let ((old, first), (new, second)) = (published("2"), published("3"));
    let mut world = World::with("127.78.4.1", None, Behaviour::default(), first).await;
    // The tag moves after the lookup and before the flash.
    world.publish(second);
    let sent = world.flash().await.expect("flashed");
    assert!(sent.message.contains(&new), "{sent:?}");
    world.becomes("flashed", |report| report.version == "3").await;
    // A digest always names the same content.
    let repository = format!("{}/firmware/thermo", world.registry.host);
    world.options.pull.firmware = format!("{repository}@{old}");
    let sent = world.flash().await.expect("flashed");
    assert!(sent.message.contains(&old), "{sent:?}");
    world.becomes("flashed", |report| report.version == "2").await;
}
