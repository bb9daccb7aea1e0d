use std::collections::BTreeMap;
use std::fs;

use super::Stage;
use crate::image::{Copy, Image};

fn read(text: &str, arguments: &[(&str, &str)]) -> anyhow::Result<Image> {
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = folder.path().join("Dockerfile");
    fs::write(&dockerfile, text).unwrap();
    let owned_pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Stage {
        dockerfile,
        target: "operator".to_owned(),
        contexts: BTreeMap::from([("build".to_owned(), "built".into())]),
        arguments: arguments.iter().map(owned_pair).collect(),
        architecture: "arm64".to_owned(),
    }
    .image()
}

const WHOLE: &str = r#"
ARG BASE=scratch
ARG VERSION=0.0.0
FROM rust AS build
RUN make
FROM ${BASE} AS operator
ARG VERSION
ARG TARGETARCH
COPY --from=build /tree/${TARGETARCH}/ /
COPY --from=build /a /b /etc/
LABEL title="Two words" \
      version="${VERSION}"
ENV PATH=/usr/bin HOME=/
ENV PATH=/bin:$PATH
USER 65532:65532
ENTRYPOINT ["/usr/bin/program", "--flag"]
"#;

fn copy(source: &str, destination: &str) -> Copy {
    Copy { source: source.into(), destination: destination.to_owned() }
}

#[test]
fn settings_and_copies_are_those_of_the_stage() {
    let image = read(WHOLE, &[("VERSION", "1.2.3")]).unwrap();
    let owned_pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert_eq!(
        image,
        Image {
            copies: vec![
                copy("built/tree/arm64/", "/"),
                copy("built/a", "/etc/"),
                copy("built/b", "/etc/")
            ],
            architecture: "arm64".to_owned(),
            env: [("PATH", "/bin:/usr/bin"), ("HOME", "/")].map(owned_pair).to_vec(),
            user: Some("65532:65532".to_owned()),
            entrypoint: vec!["/usr/bin/program".to_owned(), "--flag".to_owned()],
            labels: [("title", "Two words"), ("version", "1.2.3")].map(owned_pair).into(),
        }
    );
}

#[test]
fn a_default_from_before_the_first_stage_is_taken() {
    assert_eq!(read(WHOLE, &[]).unwrap().labels["version"], "0.0.0");
}

#[test]
fn what_is_not_understood_is_refused_by_name_and_line() {
    let cases = [
        ("RUN make", "RUN"),
        ("WORKDIR /", "WORKDIR"),
        ("EXPOSE 8081", "EXPOSE"),
        ("CMD [\"--help\"]", "CMD"),
        ("ADD a b", "ADD"),
        ("VOLUME /tmp", "VOLUME"),
        ("COPY --from=build --chown=1:1 /a /b", "--chown"),
        ("COPY --from=other /a /b", "--build-context other=FOLDER"),
        ("COPY --from=build /a* /b", "patterns"),
        ("COPY --from=build /../a /b", "'..'"),
        ("COPY a /b", "--from"),
        ("ENTRYPOINT program", "ENTRYPOINT"),
        ("ENV NAME value", "ENV"),
    ];
    for (instruction, named) in cases {
        let error =
            read(&format!("FROM scratch AS operator\n\n{instruction}\n"), &[]).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("Dockerfile:3: ") && text.contains(named), "{instruction}: {text}");
    }
}

#[test]
fn a_base_image_and_an_unknown_argument_are_refused() {
    let base = read(WHOLE, &[("BASE", "debian")]).unwrap_err();
    assert!(format!("{base:#}").contains("Dockerfile:6: FROM debian"), "{base:#}");
    let argument = read(WHOLE, &[("VERSON", "1")]).unwrap_err();
    assert!(format!("{argument:#}").contains("VERSON: no ARG declares it"), "{argument:#}");
}
