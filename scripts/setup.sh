#!/bin/sh
# Brings a Debian 12 machine to where `make demo` and `make test` work: the missing Debian packages, a virtual
# environment in .venv with the locked Python packages, and MobiScud itself. Says what it does; running it again
# does only what is missing.
set -eu
cd "$(dirname "$0")/.."

# openvswitch-switch: the switches; libvirt-daemon, qemu-system-x86: the hypervisors; mosquitto: the broker;
# clang, libbpf-dev, bpftool: the datapath program; busybox-static, cpio, linux image (fetched, not installed): the
# guest; librsvg2-bin: plots as PNG; tshark, tcpdump: the tests' second opinion; the rest: tools for namespaces and for
# building.
PACKAGES="openvswitch-switch libvirt-daemon libvirt-dev libvirt-clients qemu-system-x86 qemu-utils mosquitto
    clang llvm libbpf-dev linux-libc-dev bpftool busybox-static cpio librsvg2-bin tshark tcpdump openssl ethtool iproute2
    iputils-ping kmod procps util-linux gcc libc6-dev pkg-config python3 python3-dev python3-venv"

say() { printf 'setup: %s\n' "$*" >&2; }

missing=
for package in $PACKAGES; do
    case "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then as_root=; elif command -v sudo >/dev/null; then as_root=sudo; else
        say "these Debian packages are missing, and only root can install them:$missing"
        say "run as root: apt-get install --no-install-recommends$missing"
        exit 1
    fi
    say "installing Debian packages:$missing"
    $as_root apt-get update -q >&2
    # shellcheck disable=SC2086  # a list of words on purpose
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
else
    say "all Debian packages are there"
fi

python=/usr/bin/python3
[ -x "$python" ] || python=$(command -v python3)
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making the virtual environment .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

stamp=.venv/.mobiscud-setup
wanted=$(cat requirements.lock pyproject.toml | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    say "installing the locked Python packages (a few minutes the first time)"
    .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock >&2
    say "installing MobiScud itself"
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -e . >&2
    printf '%s' "$wanted" >"$stamp"
else
    say "the Python packages are up to date"
fi
say "done: .venv/bin/mobiscud --help"
