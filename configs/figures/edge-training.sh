#!/usr/bin/env bash
# Training among several servers under each method's plan: accuracy, virtual time, energy and bytes.
# edge-training.sh [JOB [OUT]] [options of sflam compare]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" edge-training configs/edge/twin.toml "$@"
sflam compare "$job" \
    --methods sflam+dual,sflam+fractional,sflam+nearest,sflam+equal,sflam+card,sflam+all-edge,sflam+all-local \
    --weights 0.1,0.5,0.9 "${options[@]}"
sflam report "$out"
