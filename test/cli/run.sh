#!/bin/bash
# End-to-end tests of the command line: runs every test/cli/*_test.sh against the binary in $FLANMOE and prints one line each. A script runs in a
# temporary folder of its own, which is removed, and has the functions of check.sh.
cd "$(dirname "$0")/../.." || exit 1
FLANMOE=$(realpath "${FLANMOE:-build/flanmoe}")
ROOT=$PWD
export FLANMOE ROOT
failed=0
for script in test/cli/*_test.sh; do
    folder=$(mktemp -d)
    if (cd "$folder" && bash -c 'source "$ROOT/test/cli/check.sh"; source "$1"; finish' check "$ROOT/$script"); then
        echo "ok      $script"
    else
        echo "FAILED  $script"
        failed=1
    fi
    chmod -R u+w "$folder" && rm -rf "$folder"
done
exit $failed
