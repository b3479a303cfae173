#!/usr/bin/env bash
# Accuracy against quantization levels and against the skew of the data (Dirichlet 0.1, 0.5, 1.0).
# [JOB=job.toml] configs/figures/sflam-levels.sh [more options of sflam compare]
set -euo pipefail
cd "$(dirname "$0")/../.."
job=${JOB:-configs/sflam/twin.toml}
sflam compare "$job" --seeds 3 --methods sflam,central --bits 2,3,4,8,16 --alphas 0.1,0.5,1.0 \
    --out "runs/sflam-levels" "$@"
sflam report runs/sflam-levels
