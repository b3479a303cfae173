#!/usr/bin/env bash
# Average-replace-one stability against the tuned fraction, measured beside its bounds.
# edge-stability.sh [JOB [OUT]] [options of sflam stability]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" edge-stability configs/edge/twin.toml "$@"
sflam stability "$job" --layers 1,2,3,4,5,6 "${options[@]}"
