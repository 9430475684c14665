"""Spark's daemon of Python workers, with what our tasks import already in it: every worker is a fork of it.

Spark starts a worker anew where none is idle, and ends one that has been idle for a minute. Each then imports
Arrow, pandas and numba, two to three seconds of a core, several times a stage. A fork has them at once, and
shares their memory. Nothing here may start a thread: a fork has none but its own.
"""

from __future__ import annotations

import importlib

from pyspark import daemon

from recsys_spark.runtime.workers import warm_worker

# What most tasks use; the compiled loops of ranking and training follow with their first use.
PRELOADED = (
    "numpy",
    "pandas",
    "pyarrow",
    "pyarrow.compute",
    "pyspark.sql.pandas.types",
    "numba",
    "scipy.sparse",
)


def main() -> None:
    """What `python -m pyspark.daemon WORKER_MODULE` does, after the imports."""
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except ImportError:  # numba may be missing
            continue
    warm_worker()
    daemon.manager()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
