#!/usr/bin/env bash
# Time, energy and their weighted sum against the devices' highest power.
set -euo pipefail
cd "$(dirname "$0")/../.."
python configs/figures/sweep.py "${JOB:-configs/sflam/cifar10.toml}" --key network.max_power_dbm --label "highest power (dBm)" \
    --values 5,8,11,14,17,20,23,26 --methods optimal,bcd,equal-bandwidth,equal,random --out runs/sflam-power "$@"
