#!/usr/bin/env bash
# Delay + energy + instability against the number of users: the certified method, the paper's, and the baselines.
# edge-objective.sh [JOB [OUT]] [options of sweep.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" edge-objective configs/edge/square.toml "$@"
python "$checkout/configs/figures/sweep.py" "$job" --key network.devices --label "users" --values 5,10,20,30,40 \
    --methods dual,fractional,hungarian,nearest,random,card,all-edge,all-local,equal --draws 3 "${options[@]}"
