#!/usr/bin/env bash
# Training among several servers under each method's plan: accuracy, virtual time, energy and bytes.
# [JOB=job.toml] configs/figures/edge-training.sh [more options of sflam compare]
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${JOB:-configs/edge/twin.toml}
sflam compare "$job" --methods sflam+dual,sflam+fractional,sflam+nearest,sflam+equal,sflam+card,sflam+all-edge,sflam+all-local \
    --weights 0.1,0.5,0.9 --out runs/edge-training "$@"
sflam report runs/edge-training
