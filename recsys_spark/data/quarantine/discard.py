"""A delivered file left out for good: the way on where a gate refuses it and its correction is there too.

Not a stage of the night: `recsys quarantine --discard FILE` runs it. Bronze keeps the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pyspark.sql import functions as F

from recsys_spark.data.cleaning.finished import DISCARDED, file_key, finished_files
from recsys_spark.data.sources import one_slash
from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import Delivered, delivered_files
from recsys_spark.lake.tables import BRONZE

_LEAST_HASH = 8  # digits that name a content
_SHOWN = 10


def discard(job: Job, name: str) -> tuple[Delivered, int]:
    """Mark the one waiting file of this name as not to be taken to silver; the file and its rows.

    It is noted in ops.metrics with the night that took the file in, whatever night the job is of.

    name: the file's name, its path, or the first digits of its content's hash. Raises ConfigError where
    no file, or more than one, of those that bronze holds and silver does not is meant.
    """
    finished = finished_files(job.lake)
    waiting = [file for file in delivered_files(job.lake) if file_key(file) not in finished]
    found = [file for file in waiting if _is_meant(file, name)]
    if len({file_key(file) for file in found}) != 1:
        raise ConfigError(_sentence(name, found, waiting))
    # One content, and the night that took it first: the only one, unless a lake is mended by hand.
    file = min(found, key=lambda one: (one.ingest_date, one))
    count = (
        job.read(BRONZE[file.kind])
        .where(F.col("ingest_date").isin({one.ingest_date for one in found}))
        .where((F.col("source") == file.source) & (F.col("content_hash") == file.content_hash))
        .count()
    )
    replace(job, run_date=file.ingest_date).record("discard", {(DISCARDED, file_key(file)): float(count)})
    return file, count


def _is_meant(file: Delivered, name: str) -> bool:
    if len(name) >= _LEAST_HASH and file.content_hash.startswith(name):
        return True
    place, wanted = one_slash(file.file), one_slash(name)
    return place in {wanted, f"file:{wanted}"} or place.endswith(f"/{wanted}")


def _sentence(name: str, found: list[Delivered], waiting: list[Delivered]) -> str:
    if found:
        return (
            f"{len(found)} files that wait for silver are called {name!r}: {_listed(found)}. "
            "Next: recsys quarantine --discard with the first digits of the content that is meant."
        )
    listed = f"Waiting: {_listed(waiting)}." if waiting else "None waits."
    return f"no file {name!r} waits for silver (what is there is not taken out again). {listed}"


def _listed(files: Iterable[Delivered]) -> str:
    told = [f"{file.file} ({file.source}, content {file.content_hash[:12]})" for file in sorted(files)]
    return ", ".join(told[:_SHOWN]) + (f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")
