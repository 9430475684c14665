"""A delivered file left out for good: the way on where a gate refuses it and its correction is there too.

Not a stage of the night: `recsys quarantine --discard FILE` runs it. Bronze keeps the rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import functions as F

from recsys_spark.data.cleaning.finished import DISCARDED, file_key, finished_files
from recsys_spark.data.sources import one_slash
from recsys_spark.errors import ConfigError
from recsys_spark.lake.runs import Delivered, delivered_files
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import BRONZE

_LEAST_HASH = 8  # digits that name a content
_SHOWN = 10


def waiting_file(lake: Lake, name: str) -> tuple[Delivered, int]:
    """The one file of this name that bronze holds and silver does not, and how many rows bronze has of it.

    name: the file's name, its path, or the first digits of its content's hash. Raises ConfigError where no
    file that waits for silver is meant, or more than one.
    """
    finished = finished_files(lake)
    waiting = [file for file in delivered_files(lake) if file_key(file) not in finished]
    meant = [file for file in waiting if _is_meant(file, name)]
    if len({file_key(file) for file in meant}) != 1:
        raise ConfigError(_sentence(name, meant, waiting))
    # One content, and the night that took it first: the only one, unless a lake is mended by hand.
    file = min(meant, key=lambda one: (one.ingest_date, one))
    count = (
        lake.read(BRONZE[file.kind])
        .where(F.col("ingest_date").isin({one.ingest_date for one in meant}))
        .where((F.col("source") == file.source) & (F.col("content_hash") == file.content_hash))
        .count()
    )
    return file, count


def discarded(file: Delivered, rows: int) -> dict[tuple[str, str], float]:
    """What to record of a file and its rows so that no later night takes it to silver.

    It is recorded with the night that took the file in.
    """
    return {(DISCARDED, file_key(file)): float(rows)}


def _is_meant(file: Delivered, name: str) -> bool:
    if len(name) >= _LEAST_HASH and file.content_hash.startswith(name):
        return True
    place, wanted = one_slash(file.file), one_slash(name)
    return place in {wanted, f"file:{wanted}"} or place.endswith(f"/{wanted}")


def _sentence(name: str, meant: list[Delivered], waiting: list[Delivered]) -> str:
    if meant:
        return (
            f"{len(meant)} files that wait for silver are called {name!r}: {_listed(meant)}. "
            "Next: recsys quarantine --discard with the first digits of the content that is meant."
        )
    listed = f"Waiting: {_listed(waiting)}." if waiting else "None waits."
    return f"no file {name!r} waits for silver (what is there is not taken out again). {listed}"


def _listed(files: Iterable[Delivered]) -> str:
    listed = [f"{file.file} ({file.source}, content {file.content_hash[:12]})" for file in sorted(files)]
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")
