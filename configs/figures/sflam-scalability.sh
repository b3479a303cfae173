#!/usr/bin/env bash
# Accuracy, time and energy of whole runs against the number of devices, all of which take part.
# sflam-scalability.sh [JOB [OUT]] [options of trained.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-scalability configs/sflam/twin.toml "$@"
python "$checkout/configs/figures/trained.py" "$job" --key devices --label "devices" --values 5,10,20,50 \
    --methods optimal,equal --set fleet.selected=0 "${options[@]}"
