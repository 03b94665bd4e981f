#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs and builds what is missing, then hands over to the lab. `./launch.sh --help` says more.
set -eu
home=$(dirname "$(readlink -f "$0")")
export PATH="$PATH:/usr/sbin:/sbin"

case ${1-} in
'')
    echo 'usage: ./launch.sh CONFIG [--capture FILE] [--speed 1x|10x|top | --pps N] [--set SECTION.KEY=VALUE]' \
        '[--name NAME] [--serve]' >&2
    exit 2
    ;;
-h | --help) exec "$home/harness/lab.py" --help ;;
esac

"$home/harness/setup.sh"
make -s -j "$(nproc)" -C "$home" >&2

exec "$home/harness/lab.py" "$@"
