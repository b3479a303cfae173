#!/bin/sh
# Starts the job's server, or goes on with it where it was: what systemd, a container or a person runs again and again.
# Usage: serve.sh JOB RUN [options of sflam serve]
set -eu
job=$1 run=$2
shift 2
if [ -f "$run/config.toml" ]; then
    exec sflam serve --resume "$run" "$@"
fi
exec sflam serve "$job" --out "$run" "$@"
