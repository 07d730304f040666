# shellcheck shell=bash
#
# Functions that the scripts share: messages, and the installation of programs.
#
# A need is checked by running its program, not by looking up a package: a Tesseract from Homebrew or from source is as
# good as Debian's. Packages matter only if a program is missing. On Debian and its derivatives they are then installed.
# On other systems the command that would install them is printed, because a wrong guess could damage the system.
#
# Source this after `set -euo pipefail`, from the repository's root. It defines functions and runs nothing. It uses only
# features of bash 3.2, which is the bash of macOS.

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '       %s\n' "$@" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# step NAME COMMAND...: runs a command, and prints its name before and its duration after it. A failure ends the script
# through `set -e`; the trap then prints the name of the failed step.
step() {
    local name=$1 started=$SECONDS
    shift
    trap 'printf "==> %s: FAILED\n" "'"$name"'" >&2' EXIT
    say "$name"
    "$@"
    trap - EXIT
    say "$name: ok, $((SECONDS - started)) s"
}

# --- Rust -----------------------------------------------------------------------------------------

# The oldest supported compiler, from Cargo.toml.
minimum_rust() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml; }

# A cargo that is new enough. It is also found right after rustup ran, in a shell that has not read its profile.
need_rust() {
    # shellcheck disable=SC1091  # rustup writes it; it is not part of the repository
    has cargo || [[ ! -r "${CARGO_HOME:-$HOME/.cargo}/env" ]] || . "${CARGO_HOME:-$HOME/.cargo}/env"
    has cargo || die "cargo was not found; install Rust with" \
        "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"

    local wanted found
    wanted=$(minimum_rust)
    found=$(rustc --version | awk '{print $2}')
    [[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1) == "$wanted" ]] ||
        die "rustc is $found, the crate needs $wanted or later; run" "rustup update stable"
}

# rustfmt and clippy, which a minimal toolchain does not include.
need_rust_linters() {
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return; fi
    has rustup || die "rustfmt and clippy are missing; install them for this toolchain"
    rustup component add rustfmt clippy
}

# --- Programs -------------------------------------------------------------------------------------

# The bundled SQLite, ring and jemalloc are C and assembly. jemalloc is built with make.
has_compiler() { has cc && has ld && has make && printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1; }

has_tesseract() {
    local languages
    has tesseract && languages=$(tesseract --list-langs 2>&1) &&
        grep -qx eng <<<"$languages" && grep -qx chi_sim <<<"$languages"
}

# The programs of the server, which Debian does not put on the search path.
has_postgres() { has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

# Some systems have Valkey in place of Redis. The tests accept both.
has_redis() { has redis-server || has valkey-server; }

has_nginx() { has nginx; }

# The programs with which tests look at PDFs.
has_pdf() { has qpdf && has pdftotext; }

has_pgbouncer() { has pgbouncer; }

# Debian has promtool only in the package of the Prometheus server, which starts the server on installation. So the
# package is unpacked, and only promtool is copied to the target folder, where tests/it/alerts.rs looks for it.
unpacked_promtool=${CARGO_TARGET_DIR:-target}/promtool/usr/bin/promtool

has_promtool() { has promtool || [[ -x $unpacked_promtool ]]; }

unpack_promtool() {
    local folder
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -qq prometheus 2>/dev/null && dpkg --extract prometheus_*.deb .) ||
        die "apt-get could not download prometheus"
    mkdir -p "${unpacked_promtool%/*}"
    cp "$folder/usr/bin/promtool" "$unpacked_promtool"
    rm -rf "$folder"
}

# One of the fonts that src/document/pdf/fonts.rs looks for. Without one, text in a Chinese font is not drawn.
has_cjk_font() {
    compgen -G '/usr/share/fonts*/truetype/DroidSansFallback*.ttf' >/dev/null ||
        compgen -G '/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf' >/dev/null ||
        compgen -G '/usr/share/fonts/truetype/wqy/wqy-*.ttc' >/dev/null ||
        compgen -G '/usr/share/fonts/*/noto/NotoSansCJK-Regular.ttc' >/dev/null
}

has_git() { has git; }

has_node() { has node && has npm; }

# Programs that build and run images without a daemon, and create the base images without a registry.
has_containers() {
    has buildah && has podman && has runc && has mmdebstrap && has nsenter && has curl
}

has_venv() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# debian_packages NEED, other_packages NEED MANAGER: the packages that provide a need.
debian_packages() {
    case $1 in
        compiler) echo build-essential ;;
        tesseract) echo tesseract-ocr tesseract-ocr-eng tesseract-ocr-chi-sim ;;
        postgres) echo postgresql ;;
        redis) echo redis-server ;;
        nginx) echo nginx-light ;;
        pgbouncer) echo pgbouncer ;;
        pdf) echo qpdf poppler-utils ;;
        # Docker's own packages include a runc that conflicts with Debian's.
        containers) echo buildah podman mmdebstrap debian-archive-keyring util-linux curl "$(has runc || echo runc)" ;;
        cjk_font) echo fonts-droid-fallback ;;
        git) echo git ;;
        venv) echo python3 python3-venv ;;
        node) echo nodejs npm ;;
    esac
}

other_packages() {
    case $1-$2 in
        compiler-brew) ;; # comes with Apple's command line tools, which Homebrew itself needs
        compiler-dnf) echo gcc make ;;
        compiler-pacman) echo base-devel ;;
        tesseract-brew) echo tesseract tesseract-lang ;;
        tesseract-dnf) echo tesseract tesseract-langpack-eng tesseract-langpack-chi_sim ;;
        tesseract-pacman) echo tesseract tesseract-data-eng tesseract-data-chi_sim ;;
        promtool-brew | promtool-pacman) echo prometheus ;;
        promtool-dnf) echo golang-github-prometheus ;;
        postgres-brew) echo postgresql ;;
        postgres-dnf) echo postgresql-server ;;
        postgres-pacman) echo postgresql ;;
        redis-brew) echo redis ;;
        nginx-brew | nginx-dnf | nginx-pacman) echo nginx ;;
        pdf-brew | pdf-pacman) echo qpdf poppler ;;
        pdf-dnf) echo qpdf poppler-utils ;;
        pgbouncer-brew | pgbouncer-dnf | pgbouncer-pacman) echo pgbouncer ;;
        redis-dnf | redis-pacman) echo valkey ;;
        containers-dnf) echo buildah podman runc mmdebstrap util-linux curl ;;
        git-brew | git-dnf | git-pacman) echo git ;;
        venv-brew | venv-pacman) echo python ;;
        venv-dnf) echo python3 ;;
        node-brew) echo node ;;
        node-dnf) echo nodejs nodejs-npm ;;
        node-pacman) echo nodejs npm ;;
    esac
}

# need NEED...: installs the missing programs or prints how to, and ends the script if one is still missing.
need() {
    local missing
    missing=$(missing_of "$@")
    [[ -n "$missing" ]] || return 0
    # shellcheck disable=SC2086  # names of needs are words, meant to be split
    if has apt-get; then install_debian $missing; else advise $missing; fi
    missing=$(missing_of "$@")
    [[ -z "$missing" ]] || die "still missing: $missing"
}

missing_of() {
    local wanted missing=""
    for wanted in "$@"; do "has_$wanted" || missing+=" $wanted"; done
    echo "${missing# }"
}

install_debian() {
    local wanted packages=""
    for wanted in "$@"; do packages+=" $(debian_packages "$wanted")"; done
    say "installing $*"
    can_be_root || die "sudo was not found; as root, run" "apt-get install$packages"
    # A third-party repository that is down must not prevent the installation from Debian's own.
    as_root apt-get update -qq || say "apt-get update failed; continuing with the existing package lists"
    # shellcheck disable=SC2086  # names of packages are words, meant to be split
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 $packages >/dev/null ||
        die "apt-get could not install$packages"
    [[ " $* " != *" promtool "* ]] || unpack_promtool
}

advise() {
    say "missing: $*. Install it with the system's package manager:"
    local manager wanted packages
    for manager in brew dnf pacman; do
        packages=""
        for wanted in "$@"; do packages+=" $(other_packages "$wanted" "$manager")"; done
        # shellcheck disable=SC2086  # as above; splitting also removes the gap of a need without a package
        case $manager in
            brew) echo "       brew install" $packages ;;
            dnf) echo "       sudo dnf install" $packages ;;
            pacman) echo "       sudo pacman -S" $packages ;;
        esac >&2
    done
}

can_be_root() { ((EUID == 0)) || has sudo; }

# Without a terminal sudo could not ask for a password and would wait forever.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif [[ -t 0 ]]; then
        sudo "$@"
    else
        sudo --non-interactive "$@"
    fi
}
