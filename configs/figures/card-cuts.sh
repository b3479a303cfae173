#!/usr/bin/env bash
# CARD: time and energy against the cut, the server's clock chosen in closed form at each.
set -euo pipefail
cd "$(dirname "$0")/../.."
python configs/figures/sweep.py "${JOB:-configs/card/cuts.toml}" --key model.cut --label "blocks on the device" \
    --values 0,1,2,3,4,5,6,7,8,9,10,11 --methods optimal --set 'plan.optimize=["clock"]' --out runs/card-cuts "$@"
sflam plan "${JOB:-configs/card/cuts.toml}"
