#!/usr/bin/env bash
# What planning is worth in training: the same learning under each allocator, and the front between time and energy.
# sflam-allocators.sh [JOB [OUT]] [options of sflam compare]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-allocators configs/sflam/twin.toml "$@"
sflam compare "$job" --methods sflam+optimal,sflam+bcd,sflam+equal-bandwidth,sflam+equal,sflam+random \
    --weights 0.1,0.3,0.5,0.7,0.9 "${options[@]}"
sflam report "$out"
