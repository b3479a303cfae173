#!/usr/bin/env bash
# The memory of a device at every cut, by the one model of memory.
# sflam-memory.sh [JOB [OUT]] [options of memory.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-memory configs/sflam/cifar10.toml "$@"
python "$checkout/configs/figures/memory.py" "$job" "${options[@]}"
