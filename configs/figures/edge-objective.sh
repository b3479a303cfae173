#!/usr/bin/env bash
# Delay + energy + instability against the number of users: the certified method, the paper's, and the baselines.
set -euo pipefail
cd "$(dirname "$0")/../.."
python configs/figures/sweep.py "${JOB:-configs/edge/square.toml}" --key network.devices --label "users" --values 5,10,20,30,40 \
    --methods dual,fractional,hungarian,nearest,random,card,all-edge,all-local,equal --draws 3 --out runs/edge-objective "$@"
