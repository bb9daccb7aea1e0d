# Images of this project. The last stages only copy and set: `cargo run -p flashjob-xtask -- image` writes them without a container
# engine, and refuses what it does not understand (docs/install.md, "Images").

# Image in which the programs are built: Debian or Ubuntu with Rust 1.95 or newer, rustup and a C compiler. Where short names are not
# resolved (Debian's podman and buildah), give it with its registry.
ARG BUILD=rust:1.95-bookworm
# Image that the operator's is built on. scratch: the image brings the C library, certificates and users along.
ARG BASE=scratch
ARG VERSION=0.1.0

# Compiles on the architecture of this machine for that of the image, so that no emulation is needed.
FROM --platform=${BUILDPLATFORM} ${BUILD} AS build
ARG BASE
ARG TARGETARCH
WORKDIR /source
COPY deploy/image/toolchain.sh deploy/image/
RUN deploy/image/toolchain.sh "${TARGETARCH}"
COPY . .
RUN --mount=type=cache,id=flashjob-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=flashjob-target,target=/source/target \
    deploy/image/build.sh --architecture "${TARGETARCH}" --base "${BASE}" --output /image

FROM ${BASE} AS operator
ARG VERSION
LABEL org.opencontainers.image.title="FlashJob operator" \
      org.opencontainers.image.description="Keeps the firmware of fleets of microcontrollers current" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /image/operator/ /
# Engines differ in what they set where nothing is said.
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/flashjob-operator"]

# The program that hands firmware to a device. It needs no right; plugins run it as a user of their choice.
FROM ${BASE} AS flasher
ARG VERSION
LABEL org.opencontainers.image.title="FlashJob flasher" \
      org.opencontainers.image.description="Hands firmware from a registry to one microcontroller" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /image/flasher/ /
ENV PATH=/usr/local/bin
USER 65532:65532
# Another way to a device is another word in the place of the second: a plugin gives the whole command then.
ENTRYPOINT ["/usr/local/bin/flashjob-flasher", "ota"]
