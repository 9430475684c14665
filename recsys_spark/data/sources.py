"""From a delivered file to bronze rows: found, hashed, mapped to our names, kept as strings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from recsys_spark.config import Source
from recsys_spark.data.kinds import KINDS
from recsys_spark.data.rules import TAG_JOINER
from recsys_spark.errors import ConfigError, InputError, did_you_mean
from recsys_spark.lake.store import java_reason
from recsys_spark.lake.tables import FIELDS_BY_KIND

_MALFORMED = "_malformed"
_SAMPLE_LINES = 200


@dataclass(frozen=True)
class SourceFile:
    """One delivered file; `modified_ms` is the store's own time of delivery, epoch milliseconds."""

    path: str
    uri: str
    size: int
    modified_ms: int
    content_hash: str = ""


def find_files(spark: SparkSession, name: str, path: str) -> list[SourceFile]:
    """Files under a path, folder or glob of any Hadoop file system, by path; hidden ones left out.

    Raises ConfigError where nothing is there.
    """
    context: Any = spark.sparkContext
    jvm, hadoop = context._jvm, context._jsc.hadoopConfiguration()  # noqa: SLF001
    root = jvm.org.apache.hadoop.fs.Path(path)
    try:
        system = root.getFileSystem(hadoop)
        matches = list(system.globStatus(root) or [])
    except Py4JJavaError as error:
        raise ConfigError(f"source {name!r}: cannot list {path}: {java_reason(error)}") from None
    if not matches:
        raise ConfigError(
            f"source {name!r}: nothing at {path}. Expected a file, a folder or a glob that matches. "
            f"Next: correct sources.{name}.path, or deliver the file."
        )
    files: list[SourceFile] = []
    for match in matches:
        files.extend(_walk(system, match))
    if not files:
        raise InputError(f"source {name!r}: {path} holds no files. Expected at least one.")
    return sorted(files, key=lambda file: file.path)


def _walk(system: Any, status: Any) -> Iterable[SourceFile]:
    if status.getPath().getName().startswith(("_", ".")):
        return
    if status.isDirectory():
        for child in system.listStatus(status.getPath()):
            yield from _walk(system, child)
        return
    path = status.getPath()
    yield SourceFile(path.toString(), path.toUri().toString(), status.getLen(), status.getModificationTime())


def with_content_hash(spark: SparkSession, file: SourceFile) -> SourceFile:
    """The file with the SHA-256 of its bytes: what makes a delivery the same or another."""
    context: Any = spark.sparkContext
    jvm, hadoop = context._jvm, context._jsc.hadoopConfiguration()  # noqa: SLF001
    path = jvm.org.apache.hadoop.fs.Path(file.path)
    try:
        stream = path.getFileSystem(hadoop).open(path)
        try:
            content_hash = jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream)
        finally:
            stream.close()
    except Py4JJavaError as error:
        raise InputError(f"cannot read {file.path}: {java_reason(error)}") from None
    return replace(file, content_hash=str(content_hash))


def read_source(spark: SparkSession, name: str, source: Source, files: list[SourceFile]) -> DataFrame:
    """One row per delivered row: source_file, row (from 0 in its file), malformed, and the payload.

    Raises ConfigError where the mapping names columns that the files do not have, InputError where
    a file cannot be read or is empty.
    """
    check_mapping(name, source)
    empty = [file.path for file in files if file.size == 0]
    if empty:
        raise InputError(f"source {name!r}: {empty[0]} is empty (0 bytes). Expected rows of {source.kind}.")
    try:
        delivered = _READERS[source.format](spark, source, [file.path for file in files])
    except (PySparkException, Py4JJavaError) as error:
        raise InputError(
            f"source {name!r}: cannot read {files[0].path} as {source.format}: {java_reason(error)}"
        ) from None
    check_columns(name, source, delivered.columns)
    return delivered.select("source_file", "row", F.col(_MALFORMED).alias("malformed"), *_payload(source))


def check_mapping(name: str, source: Source) -> None:
    """Raise ConfigError unless the section maps every required field and no unknown one."""
    fields = FIELDS_BY_KIND[source.kind]
    mapped = {**source.columns, **source.constants}
    for field in mapped:
        if field not in fields:
            raise ConfigError(
                f"sources.{name} maps unknown field {field!r} of {source.kind}: have {', '.join(fields)}."
                f"{did_you_mean(field, fields)}"
            )
    missing = [field for field in KINDS[source.kind].required if field not in mapped]
    if missing:
        raise ConfigError(f"sources.{name} ({source.kind}) does not map {', '.join(missing)}.")


def check_columns(name: str, source: Source, have: Iterable[str]) -> None:
    """Raise ConfigError that lists every mapped column the delivery lacks, with the nearest names."""
    known = [column for column in have if column not in {_MALFORMED, "source_file", "row"}]
    faults = [
        f"column {theirs!r} (for {field}) not found.{did_you_mean(theirs, known)}"
        for field, mapping in source.columns.items()
        for theirs in ([mapping] if isinstance(mapping, str) else mapping)
        if theirs not in known
    ]
    if faults:
        raise ConfigError(f"source {name!r} ({source.path}): {' '.join(faults)} It has: {', '.join(known)}.")


def bronze_rows(
    rows: DataFrame, *, name: str, files: list[SourceFile], run_date: date, payload: Iterable[str]
) -> DataFrame:
    """Bronze rows of one source: the payload as strings, tied to file, content and delivery."""
    spark = rows.sparkSession
    deliveries = spark.createDataFrame(
        [(_one_slash(file.uri), file.content_hash, file.modified_ms) for file in files],
        "_file string, content_hash string, modified_ms long",
    )
    # Spark writes file:/x in some readers and file:///x in others.
    same_file = F.regexp_replace("source_file", r"^(\w+):/+", "$1:/")
    have = set(rows.columns)
    # A row whose file is unknown would be lost in silence by an inner join; this stops instead.
    unknown = F.raise_error(F.concat(F.lit("unlisted file "), "source_file"))
    return (
        rows.withColumn("_file", same_file)
        .join(F.broadcast(deliveries), on="_file", how="left")
        .select(
            F.lit(name).alias("source"),
            "source_file",
            F.coalesce("content_hash", unknown).alias("content_hash"),
            "row",
            F.timestamp_millis("modified_ms").alias("delivered_at"),
            F.current_timestamp().alias("ingested_at"),
            F.lit(run_date).alias("ingest_date"),
            "malformed",
            *[
                (F.col(field) if field in have else F.lit(None)).cast("string").alias(field)
                for field in payload
            ],
        )
    )


def _one_slash(uri: str) -> str:
    return re.sub(r"^(\w+):/+", r"\1:/", uri)


def _payload(source: Source) -> list[Column]:
    columns = [_mapped(field, mapping, source).alias(field) for field, mapping in source.columns.items()]
    return columns + [F.lit(value).alias(field) for field, value in source.constants.items()]


def _mapped(field: str, mapping: str | list[str], source: Source) -> Column:
    names = [mapping] if isinstance(mapping, str) else mapping
    values = [F.col(f"`{name}`").cast("string") for name in names]
    if field == "tags":
        if source.tags_separator:
            values = [F.replace(value, F.lit(source.tags_separator), F.lit(TAG_JOINER)) for value in values]
        return F.concat_ws(TAG_JOINER, *values)
    if len(values) == 1:
        return values[0]
    return F.concat_ws(":" if field.endswith("_id") else " ", *values)


def _read_parquet(spark: SparkSession, _source: Source, paths: list[str]) -> DataFrame:
    rows = spark.read.parquet(*paths)
    return rows.select(
        "*",
        F.col("_metadata.file_path").alias("source_file"),
        F.col("_metadata.row_index").alias("row"),
        F.lit(None).cast("string").alias(_MALFORMED),
    )


def _read_csv(spark: SparkSession, source: Source, paths: list[str]) -> DataFrame:
    options = {
        "sep": source.separator,
        "header": str(source.header).lower(),
        "encoding": source.encoding,
        "quote": source.quote,
        "escape": source.quote or "\\",
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _MALFORMED,
    }
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        found = spark.read.options(**options).csv(path).columns if source.header else source.names
        by_columns.setdefault(tuple(found), []).append(path)
    frames = [
        _with_row_numbers(spark.read.options(**options).schema(_strings(names)).csv(same))
        for names, same in by_columns.items()
    ]
    combined = frames[0]
    for frame in frames[1:]:
        combined = combined.unionByName(frame, allowMissingColumns=True)
    return combined


def _read_jsonl(spark: SparkSession, source: Source, paths: list[str]) -> DataFrame:
    keys: dict[str, None] = {}
    for line in spark.read.text(paths).limit(_SAMPLE_LINES).collect():
        try:
            parsed = json.loads(line[0])
        except ValueError:
            continue
        keys.update(dict.fromkeys(parsed if isinstance(parsed, dict) else ()))
    reader = spark.read.option("encoding", source.encoding).option("columnNameOfCorruptRecord", _MALFORMED)
    return _with_row_numbers(reader.schema(_strings(tuple(keys))).json(paths))


_READERS = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}


def _strings(names: Iterable[str]) -> StructType:
    return StructType([StructField(name, StringType()) for name in (*names, _MALFORMED)])


def _with_row_numbers(rows: DataFrame) -> DataFrame:
    """Adds source_file and row, the line's place in its file, whatever the splits.

    Text formats have no row index. The position in the Spark partition is known for free; one
    count per (file, block) turns it into the position in the file.
    """
    placed = rows.select(
        "*",
        F.col("_metadata.file_path").alias("source_file"),
        F.col("_metadata.file_block_start").alias("_block"),
        F.monotonically_increasing_id().alias("_at"),
    )
    blocks = (
        placed.groupBy("source_file", "_block")
        .agg(F.min("_at").alias("_first"), F.count(F.lit(1)).alias("_rows"))
        .withColumn(
            "_before",
            F.coalesce(
                F.sum("_rows").over(
                    Window.partitionBy("source_file")
                    .orderBy("_block")
                    .rowsBetween(Window.unboundedPreceding, -1)
                ),
                F.lit(0),
            ),
        )
        .drop("_rows")
    )
    numbered = placed.join(F.broadcast(blocks), on=["source_file", "_block"], how="inner")
    row = F.col("_at") - F.col("_first") + F.col("_before")
    return numbered.withColumn("row", row).drop("_block", "_at", "_first", "_before")
