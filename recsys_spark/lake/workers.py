"""Spark's Python workers, which serve one task after the other."""

from __future__ import annotations

import gc
import sys
import zipimport
from functools import cache


@cache
def settle() -> None:
    """Have the process that this task runs in start its later tasks sooner; to be called by code of a task.

    Two things that Spark's worker does for every task cost more than our smaller tasks themselves:

    - It calls importlib.invalidate_caches, and up to Python 3.12 that reads the table of contents of
      pyspark.zip anew for each of its folders that something was imported from: 0.1 to 0.3 s. The files of an
      application do not change while it runs, so these tables are kept from here on.
    - It collects garbage, and walks some 100,000 objects of pandas, Arrow and numba: 50 ms. What has been
      imported so far is taken out of that.
    """
    if sys.version_info < (3, 13):
        zipimport.zipimporter.invalidate_caches = _keep_tables  # type: ignore[method-assign, assignment]
    gc.collect()
    gc.freeze()


def _keep_tables(_: zipimport.zipimporter) -> None:
    """In place of reading them again."""
