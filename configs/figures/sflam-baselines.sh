#!/usr/bin/env bash
# SFLAM against what it is compared with: accuracy by round, bytes, virtual time and energy, three seeds.
# sflam-baselines.sh [JOB [OUT]] [options of sflam compare]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-baselines configs/sflam/twin.toml "$@"
sflam compare "$job" --seeds 3 --rates 0.0001,0.0003,0.001,0.003 \
    --methods sflam,sfl-v1,sfl-v2,sl,fedlora,fedavg,local,central "${options[@]}"
sflam report "$out"
