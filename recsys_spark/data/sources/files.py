"""Delivered files: found in any Hadoop file system, hashed, and looked into at their ends.

A file may be called anything its store allows: a name that was listed is data, and never a pattern or a URI.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from py4j.java_gateway import is_instance_of
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from recsys_spark.data.sources.failures import cause
from recsys_spark.errors import ConfigError, InputError
from recsys_spark.lake.store import java_reason, located

# Half-written files of tools that rename at the end; the next night finds them whole.
UNFINISHED = (".tmp", "._COPYING_")
# Hashing is reading: more threads than this only queue at the disk or the network card.
_HASHING_THREADS = 4
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_CHECKSUMS, _RAW = "org.apache.hadoop.fs.ChecksumFileSystem", "org.apache.hadoop.fs.RawLocalFileSystem"
# What Spark and Hadoop take for parts of a glob.
_GLOB = r"[][{}*?\\]"
# What Hadoop says of a name that it took for a URI.
_NO_URI = "URISyntaxException"


@dataclass(frozen=True)
class SourceFile:
    """One delivered file (or partition of a table) and what makes its content the same or another.

    `modified_ms` is the store's own time of delivery, epoch milliseconds. `content_hash` is the
    SHA-256 of a file's bytes, the version of a Delta table, or a hash over a database partition's rows.
    """

    path: str
    uri: str
    size: int
    modified_ms: int
    content_hash: str = ""

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", maxsplit=1)[-1]


def find_files(spark: SparkSession, name: str, path: str) -> list[SourceFile]:
    """Files under a path, folder or glob of any Hadoop file system, by path.

    What lies at the path as it is written is meant, glob or not. Hidden files (`_x`, `.x`) and unfinished
    ones (`.tmp`, `._COPYING_`) are left out. Raises ConfigError where nothing is there, InputError where
    nothing is left.
    """
    root, system = _located(spark, path)
    is_local = str(system.getScheme()) == "file"
    try:
        matches = _matches(spark, system, root)
        if is_local:
            folders = [Path(match.getPath().toUri().getPath()) for match in matches if match.isDirectory()]
            _require_readable_names(name, Path(root.toUri().getPath()), folders)
        files = [file for match in matches for file in _walk(system, match)]
    except (PySparkException, Py4JJavaError) as error:
        raise ConfigError(f"source {name!r}: cannot list {path}: {java_reason(error)}") from None
    if not matches:
        raise ConfigError(
            f"source {name!r}: nothing at {path}. Expected a file, a folder or a glob that matches. "
            f"Next: correct sources.{name}.path, or deliver the file."
        )
    if not files:
        raise InputError(f"source {name!r}: {path} holds no files. Expected at least one.")
    return sorted(files, key=lambda file: file.path)


def file_at(spark: SparkSession, uri: str) -> SourceFile | None:
    """The file of that `SourceFile.uri`, if it still lies there."""
    jvm: Any = spark.sparkContext._jvm  # noqa: SLF001 - there is no other door to it
    try:
        path = jvm.org.apache.hadoop.fs.Path(jvm.java.net.URI.create(uri))
        _, system = _located(spark, path.toString())
        return next(iter(_walk(system, system.getFileStatus(path))), None)
    except (PySparkException, Py4JJavaError):
        return None


def _matches(spark: SparkSession, system: Any, path: Any) -> list[Any]:
    """What lies at the path as it is written; where nothing does, what it matches as a glob."""
    if system.exists(path):
        return [system.getFileStatus(path)]
    try:
        return list(system.globStatus(path) or [])
    except (PySparkException, Py4JJavaError) as error:
        if _NO_URI not in str(error):
            raise
        # Hadoop's glob takes what it lists for URIs, and ends at the first name with a colon.
        return _globbed(spark, system, path)


def _globbed(spark: SparkSession, system: Any, path: Any) -> list[Any]:
    """The same as Hadoop's glob, by its own filters, over folders that hold any names."""
    jvm: Any = spark.sparkContext._jvm  # noqa: SLF001
    fs, uri = jvm.org.apache.hadoop.fs, path.toUri()
    top = system.getFileStatus(system.makeQualified(fs.Path(uri.getScheme(), uri.getAuthority(), "/")))
    found: dict[str, Any] = {}
    for pattern in fs.GlobExpander.expand(uri.getPath()):
        here = [top]
        for part in pattern.strip("/").split("/"):
            folders, wanted = [one.getPath() for one in here if one.isDirectory()], fs.GlobFilter(part)
            if wanted.hasPattern():
                below = [child for folder in folders for child in system.listStatus(folder)]
                here = [child for child in below if wanted.accept(child.getPath())]
            else:
                name = fs.Path(None, None, re.sub(r"\\(.)", r"\1", part))
                paths = [fs.Path(folder, name) for folder in folders]
                here = [system.getFileStatus(one) for one in paths if system.exists(one)]
        found |= {status.getPath().toString(): status for status in here}
    return list(found.values())


def read_options(paths: Sequence[str]) -> dict[str, str]:
    """What Spark must be told to read these files (`SourceFile.path`) and no others.

    Nothing is skipped in silence, as a cluster's defaults may want. A local file with a colon in its name is
    read without a look for Hadoop's checksums, whose names would be no URIs. Paths are given by `literal`.
    """
    options = {"ignoreCorruptFiles": "false", "ignoreMissingFiles": "false"}
    if len(paths) == 1:  # of several Spark would read each as often as there are such as could be globs
        options["__globPaths__"] = "false"
    if any(":" in path.rsplit("/", maxsplit=1)[-1] for path in paths if path.startswith("file:")):
        options |= {"fs.file.impl": _RAW, "fs.file.impl.disable.cache": "true"}
    return options


def literal(paths: Sequence[str]) -> list[str]:
    """The paths as Spark takes them for themselves: what a glob would be made of is escaped."""
    return [re.sub(_GLOB, r"\\\g<0>", path) for path in paths] if len(paths) > 1 else list(paths)


def must_be_alone(path: str) -> bool:
    """Whether Spark can read the file only by itself: escapes make a glob, and globs end at colons."""
    return ":" in path.split(":", maxsplit=1)[-1] and re.search(_GLOB, path) is not None


def _opened(spark: SparkSession, system: Any, path: Any) -> Any:
    """A stream of the file's bytes; of a local one with a colon in its name as `read_options` says."""
    gateway: Any = spark.sparkContext._gateway  # noqa: SLF001
    is_odd = ":" in path.getName() and is_instance_of(gateway, system, _CHECKSUMS)
    return (system.getRawFileSystem() if is_odd else system).open(path)


def _require_readable_names(name: str, root: Path, folders: Iterable[Path]) -> None:
    """Raise InputError for a local file whose name is not UTF-8: Java cannot open it, and Hadoop passes over
    it without a word.

    root: the path of the source, a glob perhaps.
    folders: that match it.
    """
    matching = [Path(path).name for path in glob(str(root))]  # noqa: PTH207 - it leaves hidden ones out
    names = (*(entry for entry in matching if not _is_left_out(entry)), *_below(folders))
    wrong = sorted(entry for entry in names if not _is_utf8(entry))
    if wrong:
        shown = repr(os.fsencode(wrong[0]))[2:-1]
        raise InputError(
            f"source {name!r}: the name {shown} under {root} is not UTF-8 ({len(wrong)} such names), so what "
            "it names cannot be opened. Next: rename it, or deliver it under another name."
        )


def _below(folders: Iterable[Path]) -> Iterator[str]:
    """The names of all files and folders below these that a source takes."""
    for top in folders:
        for _, inner, files in os.walk(top):
            inner[:] = [entry for entry in inner if not _is_left_out(entry)]
            yield from (entry for entry in (*inner, *files) if not _is_left_out(entry))


def _is_utf8(name: str) -> bool:
    """Whether a name's bytes were UTF-8; others are surrogates to Python, which cannot be encoded."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_left_out(name: str) -> bool:
    return name.startswith(("_", ".")) or name.endswith(UNFINISHED)


def _walk(system: Any, status: Any) -> Iterable[SourceFile]:
    path = status.getPath()
    if _is_left_out(path.getName()):
        return
    if status.isDirectory():
        for child in system.listStatus(path):
            yield from _walk(system, child)
        return
    yield SourceFile(path.toString(), path.toUri().toString(), status.getLen(), status.getModificationTime())


def with_content_hash(spark: SparkSession, file: SourceFile) -> SourceFile:
    """The file with the SHA-256 of its bytes: what makes a delivery the same or another."""
    context: Any = spark.sparkContext
    path, system = _located(spark, file.path)
    try:
        stream = _opened(spark, system, path)
        try:
            digest = context._jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream)  # noqa: SLF001
        finally:
            stream.close()
    except (PySparkException, Py4JJavaError) as error:
        raise InputError(f"cannot read {file.path}: {cause(error)}. Next: deliver it again.") from None
    return replace(file, content_hash=str(digest))


def with_content_hashes(spark: SparkSession, files: Sequence[SourceFile]) -> list[SourceFile]:
    """All files with their hashes, in the given order; a few are read at a time."""
    with ThreadPoolExecutor(_HASHING_THREADS) as threads:
        return list(threads.map(lambda file: with_content_hash(spark, file), files))


def head(spark: SparkSession, file: SourceFile, length: int) -> bytes:
    """The first bytes of the file's content, unpacked where its ending names a Hadoop codec.

    What Hadoop raises passes: see `reading`.
    """
    path, system = _located(spark, file.path)
    codec = _codec(spark, path)
    stream = _opened(spark, system, path)
    try:
        unpacked = stream if codec is None else codec.createInputStream(stream)
        return bytes(unpacked.readNBytes(length))
    finally:
        stream.close()


def is_packed(spark: SparkSession, file: SourceFile) -> bool:
    """Whether Hadoop unpacks the file by its ending (.gz, .bz2, .zst, …)."""
    return _codec(spark, _located(spark, file.path)[0]) is not None


def tail(spark: SparkSession, file: SourceFile, length: int) -> bytes:
    """The last bytes of the file as it lies there (all of a shorter file)."""
    path, system = _located(spark, file.path)
    stream = _opened(spark, system, path)
    try:
        stream.seek(max(file.size - length, 0))
        return bytes(stream.readNBytes(length))
    finally:
        stream.close()


def path_values(file: SourceFile) -> dict[str, str]:
    """`{"date": "2017-12-03"}` for `…/date=2017-12-03/events.csv`: columns that folders name."""
    folders = file.path.split("/")[:-1]
    pairs = (folder.split("=", maxsplit=1) for folder in folders if re.match(r"[^=]+=", folder))
    return {key: unquote(value) for key, value in pairs if value != _HIVE_NULL}


def _codec(spark: SparkSession, path: Any) -> Any:
    """What Hadoop unpacks a file of that name with, or None."""
    context: Any = spark.sparkContext
    codecs = context._jvm.org.apache.hadoop.io.compress  # noqa: SLF001
    return codecs.CompressionCodecFactory(context._jsc.hadoopConfiguration()).getCodec(path)  # noqa: SLF001


def _located(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Hadoop's path and its file system; ConfigError for a scheme that no installed one serves."""
    try:
        return located(spark, path)
    except (PySparkException, Py4JJavaError) as error:
        raise ConfigError(f"cannot reach {path}: {java_reason(error)}") from None
