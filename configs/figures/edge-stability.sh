#!/usr/bin/env bash
# Average-replace-one stability against the tuned fraction, measured beside its bounds.
set -euo pipefail
cd "$(dirname "$0")/../.."
sflam stability "${JOB:-configs/edge/twin.toml}" --layers 1,2,3,4,5,6 --out runs/edge-stability "$@"
