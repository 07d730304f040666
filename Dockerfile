# Two images from one source: `gateway` (the default) and `emulator`, a local replacement for DashScope.
#
#   docker build --tag ocr-gateway --build-arg REVISION="$(git rev-parse HEAD)" .
#   docker build --target emulator --tag dashscope-emulator .
#
# `scripts/image` builds and runs both without Docker, as CI does.
#
# Cache mounts of BuildKit and Buildah keep the dependencies between builds. Both images use one target folder, because
# they share most dependencies. The alternative is a first build of the manifests with empty sources. It would have to
# imitate the layout of the crate, and each change of Cargo.lock would rebuild everything.

FROM rust:1.95-bookworm AS source
WORKDIR /build
COPY . .

# Without the feature `demo`, and so without the emulator. .cargo/config.toml has the options of the allocator.
FROM source AS gateway-build
# A profile of Cargo.toml: `dist`, or `trial` for a test of the image.
ARG PROFILE=dist
# The git commit of the image, which `ocr-gateway --version` prints.
ARG REVISION
RUN --mount=type=cache,id=ocr-gateway-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=ocr-gateway-target,target=/build/target,sharing=locked \
    OCR_GATEWAY_REVISION="$REVISION" cargo build --profile "$PROFILE" --locked \
        --package ocr-gateway --no-default-features --features jemalloc && \
    install -D "target/$PROFILE/ocr-gateway" /out/ocr-gateway

FROM source AS emulator-build
ARG PROFILE=dist
RUN --mount=type=cache,id=ocr-gateway-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=ocr-gateway-target,target=/build/target,sharing=locked \
    cargo build --profile "$PROFILE" --locked --package dashscope-emulator && \
    install -D "target/$PROFILE/dashscope-emulator" /out/dashscope-emulator

FROM debian:bookworm-slim AS emulator
LABEL org.opencontainers.image.title="dashscope-emulator" \
      org.opencontainers.image.description="A local stand-in for DashScope's Qwen-OCR endpoints; for development and tests" \
      org.opencontainers.image.source="https://github.com/ocr-gateway/ocr-gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008  # Debian has one version of a package at a time, so a pinned one would soon be gone
RUN apt-get update && \
    apt-get install --yes --no-install-recommends \
        tesseract-ocr tesseract-ocr-eng tesseract-ocr-chi-sim && \
    rm -rf /var/lib/apt/lists/*
COPY --from=emulator-build /out/dashscope-emulator /usr/local/bin/dashscope-emulator
ENV DASHSCOPE_EMULATOR_LISTEN=0.0.0.0:9100
USER 10001:10001
EXPOSE 9100
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9100"]
ENTRYPOINT ["dashscope-emulator"]

FROM debian:bookworm-slim AS gateway
ARG REVISION
LABEL org.opencontainers.image.title="ocr-gateway" \
      org.opencontainers.image.description="A gateway to DashScope's Qwen-OCR models that knows what an image costs before it is sent" \
      org.opencontainers.image.source="https://github.com/ocr-gateway/ocr-gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION"
# A font with Chinese, Japanese and Korean characters (4 MB), for text in PDFs whose font is not in the file. Without it such
# text would be missing on the page that is sent.
# hadolint ignore=DL3008  # Debian has one version of a package at a time, so a pinned one would soon be gone
RUN apt-get update && \
    apt-get install --yes --no-install-recommends fonts-droid-fallback && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt
# The root certificates for TLS to the upstream. The slim image has none.
COPY --from=gateway-build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=gateway-build /out/ocr-gateway /usr/local/bin/ocr-gateway
# The only folder that is written to, and only with SQLite: mount a volume here. With PostgreSQL the root filesystem can
# be read-only.
RUN install --directory --owner=10001 --group=10001 /var/lib/ocr-gateway
WORKDIR /var/lib/ocr-gateway
# The image's settings are in a file, which a mounted configuration file overrides; environment variables would override
# the mounted file. The file is not in /etc/ocr-gateway, because a volume mounted there would hide it.
COPY config/container.toml /usr/share/ocr-gateway/defaults.toml
ENV OCR_GATEWAY_DEFAULTS=/usr/share/ocr-gateway/defaults.toml
# As a number, so that Kubernetes can check that it is not root.
USER 10001:10001
EXPOSE 8080 9090
# The service is ready within seconds, or later if a migration runs.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["ocr-gateway", "healthcheck"]
ENTRYPOINT ["ocr-gateway"]
CMD ["serve"]
