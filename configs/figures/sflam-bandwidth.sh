#!/usr/bin/env bash
# Time, energy and their weighted sum against the bandwidth of the cell.
# sflam-bandwidth.sh [JOB [OUT]] [options of sweep.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-bandwidth configs/sflam/cifar10.toml "$@"
python "$checkout/configs/figures/sweep.py" "$job" --key network.bandwidth_mhz --label "bandwidth (MHz)" \
    --values 2.5,5,10,20,40,80 --methods optimal,bcd,equal-bandwidth,equal,random "${options[@]}"
