#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what tickline needs on Debian; does nothing where all of it is there.
#
#   harness/setup.sh [FILE.txt | PACKAGE]...
#
# Names that end in .txt are further lists of Python packages, others further Debian packages.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."

packages=(build-essential pkg-config liburing-dev libnuma-dev libinih-dev libjansson-dev
    libxxhash-dev libncurses-dev libseccomp-dev libprotobuf-c-dev protobuf-c-compiler libcapnp-dev
    capnproto iproute2 util-linux tcpreplay python3-venv git)
commands=(gcc g++ make pkg-config protoc-c capnp git ip nsenter setpriv taskset unshare tcpreplay /usr/bin/python3)
lists=(requirements.txt)
for name in "$@"; do
    case $name in
    *.txt) lists+=("$name") ;;
    *) packages+=("$name") ;;
    esac
done

say() {
    echo "setup: $*" >&2
}

# One stamp for each set of wishes: with it, a start costs a few look-ups.
key=$({ echo "${packages[@]}"; cat "${lists[@]}"; } | sha256sum)
stamp=build/.setup-${key:0:16}

is_ready() {
    [ -e "$stamp" ] || return
    # Its Python may have gone since.
    [ "$(cat "$stamp")" = debian ] || [ -x .venv/bin/python ] || return
    local command
    for command in "${commands[@]}"; do
        command -v "$command" >/dev/null || return
    done
}

# install NAME…: what of these Debian packages is missing; 1 where that cannot be, in one line.
install() {
    local missing=() as_root=()
    command -v apt-get dpkg-query >/dev/null || {
        say "this is no Debian; install what corresponds to: $*"
        return 1
    }
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] ||
            missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || {
            say "packages are missing; as root: apt-get install ${missing[*]}"
            return 1
        }
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    mkdir -p build
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -qq &&
        apt-get install -y -qq --no-install-recommends "$@"' - "${missing[@]}" >build/setup.log 2>&1 || {
        say "apt-get failed (build/setup.log); as root: apt-get update && apt-get install ${missing[*]}"
        return 1
    }
}

has_python() {
    /usr/bin/python3 -c 'import numpy, rich, xxhash' 2>/dev/null
}

# Where PyPI cannot be reached, Debian's own packages serve as well. Sets `python`.
install_python() {
    local had=no arguments=() debian=(python3-crc32c python3-numpy python3-rich python3-xxhash)
    for list in "${lists[@]}"; do
        arguments+=(-r "$list")
        case $list in
        requirements-dev.txt) debian+=(python3-pytest python3-dpkt) ;;
        requirements-bench.txt) debian+=(python3-scipy python3-matplotlib) ;;
        esac
    done
    mkdir -p build
    python=venv
    [ ! -e .venv ] || had=yes
    if [ $had = no ]; then
        say "making .venv"
        /usr/bin/python3 -m venv .venv >build/pip.log 2>&1 || :
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 \
        "${arguments[@]}" >>build/pip.log 2>&1 && {
        # What older stamps speak of, a new .venv has not.
        [ $had = yes ] || rm -f build/.setup-*
        return
    }
    if [ $had = yes ]; then
        say "pip failed (build/pip.log); mend the network, or remove .venv to use Debian's packages"
        return 1
    fi
    rm -rf .venv
    python=debian
    say "pip failed (build/pip.log); taking Debian's ${debian[*]}"
    has_python && [ "${#lists[@]}" = 1 ] && return
    install "${debian[@]}"
}

is_ready || {
    install "${packages[@]}" || exit 4
    install_python || exit 4
    mkdir -p build
    echo "$python" >"$stamp"
}
