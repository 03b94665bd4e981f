#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Style and static checks of everything in the tree; a line each, and what is wrong before it.
# Exit status 1 where one failed.
# shellcheck disable=SC2317 # the checks are called by name
set -u
cd "$(dirname "$(readlink -f "$0")")/.." || exit

mapfile -t sources < <(find shm stage rx worker tx tracer launch harness tests -name '*.[ch]' -o \
    -name '*.cc' | sort)
# Peers need packages that nothing else does: their form is checked here, the rest by the compiler.
mapfile -t units < <(printf '%s\n' "${sources[@]}" | grep '\.c$' | grep -v '^tests/bench/peers/')
mapfile -t scripts < <(find . \( -name .venv -o -name 'build*' -o -name .git \) -prune -o \
    -name '*.sh' -print | sort)
flags=(-std=gnu11 -D_GNU_SOURCE -I. -isystem build/gen '-DTICKLINE_VERSION="lint"')

# Whose headers the files of a folder may include.
may_include() {
    case $1 in
    shm) echo shm ;;
    stage) echo shm stage ;;
    rx | worker | tx | tracer | launch | harness) echo shm stage "$1" ;;
    tests) echo shm stage rx worker tx tracer launch harness tests ;;
    esac
}

includes() {
    local file line text folder header bad=0
    while IFS=: read -r file line text; do
        folder=${file%%/*}
        header=$(cut -d '"' -f 2 <<<"$text")
        [[ $header == */* ]] || header=$folder/$header
        [[ " $(may_include "$folder") " == *" ${header%%/*} "* ]] || {
            echo "$file:$line: $folder/ may not include $header; expected one of: $(may_include "$folder")"
            bad=1
        }
    done < <(grep -n '^ *# *include *"' "${sources[@]}")
    return "$bad"
}

# Crash points stand in one list, and each of them somewhere in the code.
crash_points() {
    local listed passed
    listed=$(sed -n 's/^ *X("\([^"]*\)".*/\1/p' shm/crash.h | sort -u)
    passed=$(grep -rhoP 'crash_point\("\K[^"]+' --include='*.[ch]' shm stage rx worker tx tracer |
        sort -u)
    diff <(echo "$listed") <(echo "$passed") |
        sed -n 's/^< \(.*\)/shm\/crash.h: no code passes \1/p;
            s/^> \(.*\)/shm\/crash.h: \1 is passed and not listed/p'
    [[ $listed == "$passed" ]]
}

format() {
    clang-format --dry-run -Werror "${sources[@]}"
}

# Paths through a function are followed for 50,000 nodes, a fourth or so of what is usual: the few
# functions that need more took most of the time. Left out: how many warnings of system headers it
# keeps to itself.
tidy() {
    printf '%s\0' "${units[@]}" |
        xargs -0 -I '{}' -P "$(nproc)" clang-tidy --quiet '{}' -- "${flags[@]}" \
            -Xclang -analyzer-config -Xclang max-nodes=50000 2> >(grep -v 'warnings* generated\.$' >&2)
}

cpp_check() {
    cppcheck --quiet -j "$(nproc)" --error-exitcode=1 --std=c11 --inline-suppr \
        --enable=warning,performance,portability --suppress=varFuncNullUB '--suppress=*:build/gen/*' \
        '-Djson_array_foreach(a, i, v)=while (i = 0, v = json_array_get(a, i))' \
        -D__x86_64__ "${flags[@]:1}" "${units[@]}"
}

python() {
    local ruff=ruff
    [ ! -x .venv/bin/ruff ] || ruff=.venv/bin/ruff
    "$ruff" check harness tests && "$ruff" format --check harness tests
}

# The units include what is made of the schemas.
make -s build/gen/request.pb-c.c build/gen/request.capnp.c++ || exit

failed=0
run() {
    local name=$1 result=ok begin=$SECONDS
    shift
    "$@" || { result=failed && failed=1; }
    echo "lint: $name: $result ($((SECONDS - begin)) s)"
}

run 'who includes whom' includes
run 'crash points' crash_points
run clang-format format
run clang-tidy tidy
run cppcheck cpp_check
run shellcheck shellcheck "${scripts[@]}" .ci/run
run ruff python
exit "$failed"
