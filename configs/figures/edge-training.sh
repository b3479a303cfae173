#!/usr/bin/env bash
# Training under the plan, under the nearest server, and with every user for itself between rounds.
# [JOB=job.toml] configs/figures/edge-training.sh [more options of sflam train]
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${JOB:-configs/edge/twin.toml}
for method in dual fractional nearest all-local; do
    sflam train "$job" --set "plan.method=$method" --out "runs/edge-training/$method" "$@"
    sflam report "runs/edge-training/$method"
done
