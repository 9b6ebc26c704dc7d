# Checks for end-to-end tests. `expect CODE 'regular expression' command...` runs a command and compares its exit code and its output (both streams).
failures=0

expect() {
    local code=$1 pattern=$2 output status
    shift 2
    output=$("$@" 2>&1 < /dev/null)
    status=$?
    if ! [[ $status =~ ^($code)$ ]] || ! grep -qE -- "$pattern" <<< "$output"; then
        printf '  %s\n    exit code %s, expected %s; output must match: %s\n' "$*" "$status" "$code" "$pattern"
        head -20 <<< "$output" | sed 's/^/    | /'
        failures=$((failures + 1))
    fi
}

# The same for errors: moreover, the output is one line that begins with "flanmoe: ".
refuse() {
    local code=$1 pattern=$2 output
    shift 2
    expect "$code" "$pattern" "$@"
    output=$("$@" 2>&1 < /dev/null)
    if [ "$(wc -l <<< "$output")" != 1 ] || [[ $output != "flanmoe: "* ]]; then
        printf '  %s\n    must print one line that begins with "flanmoe: ", not:\n' "$*"
        head -20 <<< "$output" | sed 's/^/    | /'
        failures=$((failures + 1))
    fi
}

finish() { exit $((failures > 0)); }
