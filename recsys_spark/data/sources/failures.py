"""What Spark and Hadoop say of an unreadable source, in one sentence about the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from recsys_spark.config.sections import Source
from recsys_spark.errors import InputError
from recsys_spark.lake.store import java_reason

_GONE = ("FileNotFoundException", "NoSuchFileException", "FAILED_READ_FILE.FILE_NOT_EXIST")
_FILE = re.compile(r"reading file (\S+?)\.?(?:\s|$)")


_READ_FAULTS = ("FAILED_READ_FILE", "Spark split this file in two ways", "Failed to read block")


@contextmanager
def reading(name: str, source: Source, place: str) -> Iterator[None]:
    """Turn what Spark raises inside into an InputError that names the source, the file and the cause.

    `place` is named where the fault itself names no file.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise _input_error(error, name, source, place) from None


@contextmanager
def writing(name: str, source: Source) -> Iterator[None]:
    """The same for faults of reading that come up only while rows are written; others pass."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if not any(sign in _all_messages(error) for sign in _READ_FAULTS):
            raise
        raise _input_error(error, name, source, source.path or source.table) from None


def _input_error(
    error: PySparkException | Py4JJavaError, name: str, source: Source, place: str
) -> InputError:
    named = _FILE.search(_all_messages(error))
    file = named[1] if named else place
    return InputError(
        f"source {name!r}: cannot read {file} as {source.format}: {cause(error)}. Next: deliver it again."
    )


def cause(error: PySparkException | Py4JJavaError) -> str:
    """The innermost reason: `Unexpected end of input stream` rather than `Job aborted`."""
    if any(sign in _all_messages(error) for sign in _GONE):
        return "it vanished between listing and reading"
    java = _java(error)
    if java is None:
        return java_reason(error).rstrip(".")
    while java.getCause() is not None:
        java = java.getCause()
    lines = str(java.getMessage() or java.getClass().getSimpleName()).strip().splitlines()
    return lines[0][:300].rstrip(". ")


def _all_messages(error: PySparkException | Py4JJavaError) -> str:
    messages, java = [str(error)], _java(error)
    while java is not None:
        messages.append(f"{java.getClass().getSimpleName()}: {java.getMessage()}")
        java = java.getCause()
    return "\n".join(messages)


def _java(error: PySparkException | Py4JJavaError) -> Any:
    return error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
