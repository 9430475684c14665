#!/usr/bin/env bash
# One night by spark-submit, a stage after the other; stops at the first that fails, with its exit code.
#
#   scripts/submit_night.sh ENV RUN_DATE [STAGE ...]
#
# From the environment, each with a default for this machine:
#   RECSYS_HOME           the checkout or unpacked release that holds jobs/ and conf/
#   RECSYS_CONF           folder of the configuration; RECSYS_HOME/conf
#   RECSYS_MASTER         local[2], spark://host:port, yarn, k8s://…
#   RECSYS_SPARK_CONF     file of Spark settings; conf/spark-local.conf or conf/spark-cluster.conf
#   RECSYS_SPARK_BINARY   spark-submit
#   RECSYS_DRIVER_PYTHON  interpreter of the driver
#   RECSYS_PYTHON         interpreter of the workers, as they see it
#   RECSYS_PY_FILES       the project as .zip for the workers (make wheel)
#   RECSYS_CHECKPOINTS    folder that driver and workers share, for ALS's checkpoints; needed on a cluster
#   RECSYS_LOCALE         a locale of UTF-8, so that names of files are read as such; C.UTF-8
#   RECSYS_LOGS           folder for one log per stage
set -euo pipefail

if [ $# -lt 2 ]; then sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2; fi
env=$1 run_date=$2
shift 2
stages=("$@")
if [ $# -eq 0 ]; then
  stages=(ingest clean preferences train_als train_content train_blend recommend evaluate publish deliver)
fi

home=${RECSYS_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
master=${RECSYS_MASTER:-local[2]}
case $master in local*) sizes=local ;; *) sizes=cluster ;; esac
conf=${RECSYS_SPARK_CONF:-$home/conf/spark-$sizes.conf}
submit=${RECSYS_SPARK_BINARY:-$home/.venv/bin/spark-submit}
logs=${RECSYS_LOGS:-$home/build/logs/$run_date}
driver_python=${RECSYS_DRIVER_PYTHON:-$home/.venv/bin/python}
export RECSYS_HOME=$home RECSYS_CONF=${RECSYS_CONF:-$home/conf}
export PYSPARK_DRIVER_PYTHON=$driver_python
export PYSPARK_PYTHON=${RECSYS_PYTHON:-$driver_python}
# Java takes the encoding of file names from the locale that it starts in, and cron's has none.
export LC_ALL=${RECSYS_LOCALE:-C.UTF-8} PYTHONUTF8=1
unset SPARK_HOME SPARK_CONF_DIR
mkdir -p "$logs"

submit_stage() {
  "$submit" --master "$master" --name "recsys-$1" --properties-file "$conf" \
    ${RECSYS_PY_FILES:+--py-files "$RECSYS_PY_FILES"} \
    ${RECSYS_CHECKPOINTS:+--conf "spark.checkpoint.dir=$RECSYS_CHECKPOINTS"} \
    "$home/jobs/$1.py" --env "$env" --run-date "$run_date"
}

number=0
for stage in "${stages[@]}"; do
  number=$((number + 1)) start=$(date +%s) code=0
  # What a stage says for people comes through; Spark's and Java's own noise goes to its log.
  submit_stage "$stage" 2>"$logs/$stage.log" </dev/null || code=$?
  printf '[%d/%d] %-13s exit %d  %4d s\n' "$number" "${#stages[@]}" "$stage" "$code" $(($(date +%s) - start))
  if [ "$code" -ne 0 ]; then
    grep -vE '^WARNING: |^Picked up |^Using Spark|^Setting Spark| (INFO|WARN) |^$' "$logs/$stage.log" | tail -n 15 >&2 || true
    echo "stopped at $stage with exit code $code; its whole log is $logs/$stage.log" >&2
    exit "$code"
  fi
done
