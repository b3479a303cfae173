#!/usr/bin/env bash
# Time, energy and their weighted sum against the bandwidth of the cell.
set -euo pipefail
cd "$(dirname "$0")/../.."
python configs/figures/sweep.py "${JOB:-configs/sflam/cifar10.toml}" --key network.bandwidth_mhz --label "bandwidth (MHz)" \
    --values 2.5,5,10,20,40,80 --methods optimal,bcd,equal-bandwidth,equal,random --out runs/sflam-bandwidth "$@"
