#!/usr/bin/env bash
# Accuracy, time and energy of whole runs against the devices' highest power.
# sflam-power-trained.sh [JOB [OUT]] [options of trained.py]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-power-trained configs/sflam/twin.toml "$@"
python "$checkout/configs/figures/trained.py" "$job" --key network.max_power_dbm --label "highest power (dBm)" \
    --values 5,11,17,23 --methods optimal,equal "${options[@]}"
