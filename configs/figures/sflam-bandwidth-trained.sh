#!/usr/bin/env bash
# Accuracy, time and energy of whole runs against the bandwidth of the cell.
# sflam-bandwidth-trained.sh [JOB [OUT]] [options of trained.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-bandwidth-trained configs/sflam/twin.toml "$@"
python "$checkout/configs/figures/trained.py" "$job" --key network.bandwidth_mhz --label "bandwidth (MHz)" \
    --values 0.5,1,2,4 --methods optimal,equal "${options[@]}"
