#!/usr/bin/env bash
# CARD: time and energy against the cut, the server's clock chosen in closed form at each.
# card-cuts.sh [JOB [OUT]] [options of sweep.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" card-cuts configs/card/cuts.toml "$@"
python "$checkout/configs/figures/sweep.py" "$job" --key model.cut --label "blocks on the device" \
    --values 0,1,2,3,4,5,6,7,8,9,10,11 --methods optimal --set 'plan.optimize=["clock"]' "${options[@]}"
sflam plan "$job"
