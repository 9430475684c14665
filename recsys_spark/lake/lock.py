"""One writer at a time in a lake on this machine: the second waits, or leaves with a sentence."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from recsys_spark.errors import RecsysError
from recsys_spark.lake.store import unwritable

_LOOK_EVERY_SECONDS = 0.5


class BusyError(RecsysError):
    """Another run holds the lake: a fault that goes away, so its exit code (1) is one to retry."""


@contextmanager
def held(root: str, *, wait_seconds: float = 0.0, doing: str = "a run") -> Iterator[None]:
    """Hold the lake while the block runs; a killed process lets go of it by dying.

    Raises BusyError where another process holds it for longer than `wait_seconds`. On shared storage
    (a URI that is not file:) nothing is held: there Delta's own commits keep writers apart, and the
    scheduler runs one night at a time.
    """
    folder = _local(root)
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note = (folder / "_running").open("a+", encoding="utf-8")
    except OSError as error:
        raise unwritable(root, str(error.strerror)) from None
    with note:
        _wait_for(note, root, wait_seconds)
        note.truncate(0)
        note.write(json.dumps({"pid": os.getpid(), "doing": doing, "since": f"{datetime.now(UTC):%H:%M:%S}"}))
        note.flush()
        yield


def _wait_for(note: IO[str], root: str, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"{_holder(note)} holds the lake {root}; waited {wait_seconds:g} s. Next: wait for it to "
                    "end, or let this one wait longer (lake.wait_seconds)."
                ) from None
            time.sleep(_LOOK_EVERY_SECONDS)
        else:
            return


def _holder(note: IO[str]) -> str:
    note.seek(0)
    try:
        said = json.loads(note.read())
    except ValueError:
        return "another run"
    return f"{said['doing']} (process {said['pid']}, since {said['since']} UTC)"


def _local(root: str) -> Path | None:
    if root.startswith("file:"):
        return Path("/" + root.removeprefix("file:").lstrip("/"))
    return None if "://" in root else Path(root)
