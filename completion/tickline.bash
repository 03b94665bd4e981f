# SPDX-License-Identifier: Apache-2.0
# bash completion of tickline, its tools and launch.sh: commands, options, configuration keys.
# The keys come from `tickline config --keys`, so they are always those of this build.

# _tickline_keys TICKLINE: section.key= of every key.
_tickline_keys() {
    "$1" config --keys 2>/dev/null |
        awk '/^\[handler/ {exit} /^\[/ {section = substr($1, 2, length($1) - 2)}
             /^  [a-z]/ {print section "." $1 "="}'
}

_tickline() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program options
    COMPREPLY=()
    case ${COMP_WORDS[0]##*/} in
    launch.sh) program=${COMP_WORDS[0]%/*}/build/tickline ;;
    tickline) program=${COMP_WORDS[0]} ;;
    *) program=tickline ;;
    esac
    options='--set --fill --json --run-dir --start-order --keys --watch --help'
    [ "${COMP_WORDS[0]##*/}" = tickline ] ||
        options='--capture --speed --pps --set --name --runs --serve --start-order --help'
    case $before in
    --set | --fill)
        mapfile -t COMPREPLY < <(compgen -W "$(_tickline_keys "$program")" -- "$word")
        compopt -o nospace 2>/dev/null
        return
        ;;
    --speed) mapfile -t COMPREPLY < <(compgen -W '0.5x 1x 10x top' -- "$word") && return ;;
    --run-dir | --runs) mapfile -t COMPREPLY < <(compgen -d -- "$word") && return ;;
    --capture) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    elif [ "$COMP_CWORD" = 1 ] && [ "${COMP_WORDS[0]##*/}" = tickline ]; then
        mapfile -t COMPREPLY < <(compgen -W 'check config run status salvage clean points handler' -- "$word")
    else
        mapfile -t COMPREPLY < <(
            compgen -f -X '!*.ini' -- "$word"
            compgen -d -- "$word"
        )
    fi
}

_tickline_tool() {
    local word=${COMP_WORDS[COMP_CWORD]} options
    options=$("${COMP_WORDS[0]}" --help 2>/dev/null | grep -o -- '--[a-z][a-z-]*' | sort -u)
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    [[ $word == -* ]] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
}

complete -o filenames -F _tickline tickline tickline-lab launch.sh
complete -o filenames -F _tickline_tool tickline-summary tickline-compare tickline-capture \
    tickline-generate tickline-schemas tickline-sweep tickline-timeline tickline-vary harness/bench.py
