#!/usr/bin/env bash
# Build dist/recsys_spark-VERSION-py3-none-any.whl, and the same bytes as .zip: Spark puts files of
# --py-files on the workers' import path only when they end in .zip, .egg or .py.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf dist build/lib
.venv/bin/python -m build --wheel --no-isolation --outdir dist . >build.log 2>&1 || { cat build.log >&2; rm -f build.log; exit 1; }
rm -f build.log
for wheel in dist/*.whl; do
  cp "$wheel" "${wheel%.whl}.zip"
  echo "  $wheel"
done
