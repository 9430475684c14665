#!/usr/bin/env bash
# Resolve every lock file again. Universal: one file serves Python 3.11 to 3.13 on every platform.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND="make lock"
compile() {
  .tools/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    ${UPGRADE:+--upgrade} "$@"
}
echo '  lock/spark.txt      the project with what the demo, the tests and the search need'
compile pyproject.toml --extra demo --extra test --extra tune --output-file lock/spark.txt
echo "  lock/runtime.txt    the project alone, in the same versions: for the workers of a cluster"
compile pyproject.toml --constraint lock/spark.txt --output-file lock/runtime.txt
echo "  lock/airflow.txt    Airflow"
compile lock/airflow.in --output-file lock/airflow.txt
echo "  lock/docs.txt       the site of the documents"
compile lock/docs.in --output-file lock/docs.txt
echo "  lock/bootstrap.txt  the installer"
current=$(grep -oE '^uv==[^ ]+' lock/bootstrap.txt)
wanted=$current
if [ -n "${UPGRADE:-}" ]; then wanted=uv; fi
compile - --output-file lock/bootstrap.txt <<<"$wanted"
