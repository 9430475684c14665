"""Files that the driver serves to every executor, which maps them into memory from a folder of its own.

A broadcast would be unpickled into each Python worker; a file is fetched once per executor, and its pages are
shared by all workers of the machine. The driver serves the files (SparkContext.addFile), so that executors
need no folder in common with it. What is served is called by its name alone: names must be unique.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pyspark import SparkFiles
from pyspark.sql import SparkSession

_folders: dict[Path, str] = {}  # of the driver, by the application that they are served to


def serving_folder(spark: SparkSession, prefix: str) -> Path:
    """A new folder on the driver to serve files from; it goes when the driver's Python ends.

    Those of sessions that have been stopped are of no use to anyone, and go now.
    """
    application = spark.sparkContext.applicationId
    for folder in [old for old, owner in _folders.items() if owner != application]:
        shutil.rmtree(folder, ignore_errors=True)
        del _folders[folder]
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _folders[folder] = application
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def serve(spark: SparkSession, folder: Path, files: Iterable[str]) -> None:
    """Offer these files of the folder to all executors, of today and later."""
    for file in files:
        spark.sparkContext.addFile(str(folder / file))


def served_path(file: str) -> Path:
    """This executor's copy, or the driver's own. RuntimeError: it was withdrawn before its last use."""
    path = Path(SparkFiles.get(file))
    require_there(path)
    return path


def require_there(path: Path) -> None:
    """RuntimeError where a file of a folder to serve from, or a copy of it, has been withdrawn."""
    if not path.exists() or path.stat().st_size == 0:
        raise RuntimeError(
            f"shared file {path.name} is gone: released before its last use? Share what it holds again."
        )


def drop_copy(file: str) -> None:
    """Free this executor's disk of its copy (or the driver's, of its own)."""
    Path(SparkFiles.get(file)).unlink(missing_ok=True)


def withdraw(folder: Path, files: Iterable[str]) -> None:
    """Free the driver's disk of served files; call it after the last action that needs them.

    Spark offers a file to every executor that starts later, with no way to take the offer back, and a missing
    file would fail that executor's tasks, whatever they do. So an empty one takes its place. Executors remove
    their copies when the application ends.
    """
    for file in files:
        drop_copy(file)
        served = folder / file
        if served.exists():
            served.unlink()  # not truncated: somebody may still have it mapped
            served.touch()
