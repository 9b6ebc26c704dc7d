#!/usr/bin/env bash
# The quickstart with five times the steps: the toy world learned well.
#
# Usage:    run/toyworld.sh [OUT=runs/toyworld]
# Cost:     20 to 40 minutes on 2 cores (estimated from the quickstart); resumable: the same command goes on.
# Expected: at least 80 % mean exact match over the seen families for both models.
set -euo pipefail
cd "$(dirname "$0")/.."
SCALE=${SCALE:-5} exec run/quickstart.sh "${1:-runs/toyworld}"
