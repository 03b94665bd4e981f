#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets, replays the corpus of each, then fuzzes each for a while, one after the other.
#
#   tests/fuzz/run.sh [--seconds N] [NAME]...     N seconds each (60), of the targets named (all)
#
# A target NAME is NAME.c (libFuzzer) or NAME.py (atheris) beside this script, its seeds are corpus/NAME/, words
# worth trying NAME.dict. What coverage has taught stays in build-fuzz/corpus/NAME/ for the next time. An input
# that ends in a finding is kept in build-fuzz/findings/; mended, it belongs into corpus/NAME/. Exit status 1
# where there was one.
set -u
cd "$(dirname "$(readlink -f "$0")")/../.." || exit

build='build-fuzz'
seconds=60
names=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2-} && shift ;;
    -h | --help) sed -n '3,11s/^# \{0,1\}//p' "$0" && exit ;;
    *) names+=("$1") ;;
    esac
    shift
done
[[ $seconds =~ ^[0-9]+$ ]] || {
    echo "tests/fuzz/run.sh: --seconds $seconds: expected a whole number" >&2
    exit 2
}
mapfile -t known < <(find tests/fuzz/corpus -mindepth 1 -maxdepth 1 -printf '%f\n' | sort)
for name in "${names[@]}"; do
    [[ " ${known[*]} " == *" $name "* ]] || {
        echo "tests/fuzz/run.sh: $name: no such target; expected one of ${known[*]}" >&2
        exit 2
    }
done
[ ${#names[@]} -gt 0 ] || names=("${known[@]}")
python=python3
[ ! -x .venv/bin/python ] || python=.venv/bin/python

make -s -j "$(nproc)" BUILD=$build CC=clang-14 CXX=clang++-14 SANITIZE=fuzzer-no-link,address,undefined fuzzers || exit
mkdir -p $build/findings
# What a target writes goes here, and goes with us also where the target died.
TMPDIR=$(mktemp -d /dev/shm/tickline-fuzz.XXXXXX) || exit
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# report NAME LOG: what was found, and which input does it: a new one, or the seed that ran last.
report() {
    local input
    tail -n 60 "$2"
    input=$(sed -n 's/.*Test unit written to //p' "$2" | tail -n 1)
    echo "fuzz: $1: FINDING: ${input:-$(sed -n 's/^Running: //p' "$2" | tail -n 1)}"
}

# fuzz NAME: one line about it, and the report where there is a finding.
fuzz() {
    local name=$1 log=$build/$1.log options command
    local learnt=$build/corpus/$name seeds=tests/fuzz/corpus/$name
    mkdir -p "$learnt"
    options=(-timeout=10 -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1
        -artifact_prefix="$build/findings/$name-")
    [ ! -e "tests/fuzz/$name.dict" ] || options+=(-dict="tests/fuzz/$name.dict")
    command=("$build/fuzz/$name")
    [ ! -e "tests/fuzz/$name.py" ] || command=("$python" "tests/fuzz/$name.py")
    # Every seed by itself first: fuzzing alone leaves out those that teach nothing.
    "${command[@]}" "${options[@]}" "$seeds"/* >"$log" 2>&1 || { report "$name" "$log" && return 1; }
    if [ "$seconds" != 0 ]; then
        "${command[@]}" "${options[@]}" -max_total_time="$seconds" "$learnt" "$seeds" >"$log" 2>&1 ||
            { report "$name" "$log" && return 1; }
    fi
    echo "fuzz: $name: ok, $(find "$seeds" -type f | wc -l) seeds," \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s"
}

failed=0
for name in "${names[@]}"; do
    fuzz "$name" || failed=1
done
exit $failed
