#!/bin/bash
# End-to-end tests: runs every test/cli/*_test.sh (the command line) and test/e2e/*_test.sh (training), or those named on the command line, against the
# binary in $FLANMOE and prints one line each. A script runs in a temporary folder of its own, in memory where that is possible, which is removed; it has
# the functions of check.sh and of e2e/tiny.sh.
cd "$(dirname "$0")/../.." || exit 1
FLANMOE=$(realpath "${FLANMOE:-build/flanmoe}")
ROOT=$PWD
export FLANMOE ROOT
[ $# -gt 0 ] || set -- test/cli/*_test.sh test/e2e/*_test.sh
[ ! -w /dev/shm ] || TMPDIR=${TMPDIR:-/dev/shm}
failed=0
for script; do
    folder=$(TMPDIR=$TMPDIR mktemp -d) began=$SECONDS
    if (cd "$folder" && bash -c 'source "$ROOT/test/cli/check.sh"; source "$ROOT/test/e2e/tiny.sh"; source "$1"; finish' check "$ROOT/$script"); then
        echo "ok      $script ($((SECONDS - began)) s)"
    else
        echo "FAILED  $script ($((SECONDS - began)) s)"
        failed=1
    fi
    [ -n "$KEEP" ] && { echo "        kept: $folder"; continue; }
    chmod -R u+w "$folder" && rm -rf "$folder"
done
exit $failed
