# Read by the scripts beside it: . arguments.bash NAME DEFAULT_JOB "$@"    sets checkout, job, out and options.
#
# NAME.sh [JOB [OUT]] [options]    JOB and OUT as seen from the caller's folder, where OUT is ./NAME by default.
# The variables JOB and OUT do the same.
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${OUT:-$1} job=${JOB:-$checkout/$2}
shift 2
if [[ $# -gt 0 && $1 != -* ]]; then
    job=$1
    shift
    if [[ $# -gt 0 && $1 != -* ]]; then
        out=$1
        shift
    fi
fi
options=(--out "$out" "$@")
