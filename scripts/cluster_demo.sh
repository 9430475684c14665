#!/usr/bin/env bash
# A night on a real cluster, small: master and two workers on loopback, every stage by spark-submit, the
# project as a wheel. Workers see the shared folder and their own environment, not the driver's folders.
#
#   scripts/cluster_demo.sh ENV RUN_DATE
#
# RECSYS_CLUSTER_DIR keeps cluster and lake in a folder of your choice (outside the checkout).
set -euo pipefail
cd "$(dirname "$0")/.."
home=$PWD env=$1 run_date=$2
dir=${RECSYS_CLUSTER_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/recsys-cluster.XXXXXX")}
local_lake=${RECSYS_LAKE:-$home/data/lake}

stop() { "$home/.venv/bin/python" "$home/scripts/cluster.py" down --dir "$dir"; }
trap stop EXIT
trap 'exit 130' INT TERM

bash scripts/wheel.sh
# Not in a command substitution of a pipe: `up` must be able to fail the script.
master=$(.venv/bin/python scripts/cluster.py up --dir "$dir")

export RECSYS_HOME=$home RECSYS_MASTER=$master RECSYS_LOGS=$dir/logs/night
export RECSYS_PYTHON=$(cat "$dir/worker-python") RECSYS_DRIVER_PYTHON=$home/.venv/bin/python
RECSYS_PY_FILES=$(ls "$home"/dist/*.zip)
export RECSYS_PY_FILES
export RECSYS_LAKE=$dir/shared/lake RECSYS_OUTPUT=$dir/shared/output RECSYS_LANDING=$dir/shared/landing
export RECSYS_CHECKPOINTS=$dir/shared/checkpoints
# The driver's scratch is hidden from the workers too: a temporary path that leaks to them fails.
mkdir -p "$dir/driver/tmp" "$dir/driver/local" "$dir/driver/cwd"
export TMPDIR=$dir/driver/tmp SPARK_LOCAL_DIRS=$dir/driver/local

.venv/bin/recsys demo --prepare-only
(cd "$dir/driver/cwd" && bash "$home/scripts/submit_night.sh" "$env" "$run_date")

echo "lake    $RECSYS_LAKE"
echo "output  $RECSYS_OUTPUT"
if [ -d "$local_lake/gold/recommendations" ] && .venv/bin/recsys runs diff --help >/dev/null 2>&1; then
  .venv/bin/recsys runs diff --env "$env" --run-date "$run_date" "$local_lake" "$RECSYS_LAKE"
else
  echo "no local night to compare with (make demo makes one)"
fi
