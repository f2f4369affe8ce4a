#!/bin/sh
# A worker of one pool on this node, until it is ended: cluster/worker.sh cpu|gpu [what prefect worker start takes].
# One for each GPU, or one for a node with --limit 4 for four GPUs; its limit gpu:NODE keeps trainings apart either way.
#   PREFECT_API_URL      the server, http://HOST:4200/api
#   MLFLOW_TRACKING_URI  where runs are logged; without it, in a file of this node
#   MIYAGI_WORKSPACE     clones, cache and scratch: a local disk (default ~/.cache/miyagi)
#   MIYAGI_NODE          name of what shares GPUs (default: the host's)
#   MIYAGI_GPU_SLOTS     trainings at once on it (default: its GPUs)
set -eu
pool=${1:?which pool: cpu or gpu}
shift
: "${PREFECT_API_URL:?names no server}"
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root:$root/ssl${PYTHONPATH:+:$PYTHONPATH}"
export DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false
export MIYAGI_NODE="${MIYAGI_NODE:-$(hostname)}"
exec prefect worker start --pool "$pool" --type process --name "$MIYAGI_NODE-$pool-$$" "$@"
