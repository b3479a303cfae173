#!/usr/bin/env bash
# Accuracy against quantization levels and against the skew of the data (Dirichlet 0.1, 0.5, 1.0).
# sflam-levels.sh [JOB [OUT]] [options of sflam compare]
set -euo pipefail
. "$(dirname "$0")/arguments.bash" sflam-levels configs/sflam/twin.toml "$@"
sflam compare "$job" --seeds 3 --methods sflam,central --bits 2,3,4,8,16 --alphas 0.1,0.5,1.0 "${options[@]}"
sflam report "$out"
