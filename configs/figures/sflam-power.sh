#!/usr/bin/env bash
# Time, energy and their weighted sum against the devices' highest power.
# sflam-power.sh [JOB [OUT]] [options of sweep.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-power configs/sflam/cifar10.toml "$@"
python "$checkout/configs/figures/sweep.py" "$job" --key network.max_power_dbm --label "highest power (dBm)" \
    --values 5,8,11,14,17,20,23,26 --methods optimal,bcd,equal-bandwidth,equal,random "${options[@]}"
