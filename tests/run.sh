#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds, runs every test; about a quarter of an hour on two CPUs.
#
#   tests/run.sh [--quick]      --quick: without the sanitizers' builds and fuzzing
#
# Everything runs, whatever fails; each runner prints its own end. The last lines say how each part
# ended and how long it took. Exit status 1 where one failed.
# shellcheck disable=SC2317 # the parts are called by name
set -u
cd "$(dirname "$(readlink -f "$0")")/.." || exit
export PATH="$PATH:/usr/sbin:/sbin"

quick=no
case ${1-} in
'') ;;
--quick) quick=yes ;;
-h | --help) sed -n '3,/^# shellcheck/{/^# shellcheck/!s/^# \{0,1\}//p}' "$0" && exit ;;
*) echo "tests/run.sh: $1: expected --quick or nothing" >&2 && exit 2 ;;
esac

packages=(libcunit1-dev babeltrace2 tcpdump strace valgrind clang-format clang-tidy cppcheck shellcheck
    clang-14 libclang-rt-14-dev)
report=()
failed=0

# part NAME COMMAND…: runs it, notes how it ended and how long it took.
part() {
    local name=$1 result=ok begin=$SECONDS
    shift
    printf '\n==== %s\n' "$name"
    "$@" || { result="FAILED ($?)" && failed=1; }
    report+=("$(printf '%5d s  %-24s %s' $((SECONDS - begin)) "$name" "$result")")
}

# programs BUILD NAME…: runs CUnit programs; all of them, whatever one says.
programs() {
    local build=$1 name bad=0
    shift
    for name in "$@"; do
        printf '\n---- %s/%s\n' "$build" "$name"
        timeout 300 "$build/$name" || { echo "$name: exit status $?" && bad=1; }
    done
    return "$bad"
}

mapfile -t cunit < <(find tests -maxdepth 1 -name 'test_*.c' -printf '%f\n' | sed 's/\.c$//' | sort)
jobs=$(nproc)

part setup harness/setup.sh requirements-dev.txt requirements-bench.txt "${packages[@]}"
part build make -s -j "$jobs" all tests
part 'CUnit' programs build "${cunit[@]}"
part lint make -s lint
if [ $quick = no ]; then
    part 'thread sanitizer, build' make -s -j "$jobs" tsan
    export TICKLINE_TEST_THREADS=1
    part 'thread sanitizer' programs build-tsan test_ring test_lane test_cell
    unset TICKLINE_TEST_THREADS
    part 'asan and ubsan, build' make -s -j "$jobs" asan
    part 'asan and ubsan' programs build-asan "${cunit[@]}"
    part 'fuzz, 30 s' tests/fuzz/run.sh --seconds 2
fi
python=python3
[ ! -x .venv/bin/python ] || python=.venv/bin/python
part pytest "$python" -m pytest tests
if [ $quick = no ]; then
    # Whole runs of the sanitizers' programs (but where it is counted what malloc does, or timed),
    # and of those that count their own stamps.
    export TICKLINE_BUILD=build-asan
    some='flow-4 or io_give or malformed_requests or random_cuts or 64_connections or fix_of_tapped'
    some+=' or (under_load and not uring and not all and not count and not keep and not tracer)'
    part 'asan, whole runs' "$python" -m pytest tests/test_{runs,restart,tcp,streams,tap}.py -k "$some"
    export TICKLINE_BUILD=build-crash
    part 'salvage, counted' "$python" -m pytest tests/test_salvage.py -k every_stamp
    unset TICKLINE_BUILD
fi

printf '\n'
printf '%s\n' "${report[@]}"
printf '%5d s  in all\n' "$SECONDS"
exit "$failed"
