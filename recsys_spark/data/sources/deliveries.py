"""What is new in the configured sources: looked at as a whole first, then read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Source
from recsys_spark.data.sources import drift
from recsys_spark.data.sources.bronze import one_slash
from recsys_spark.data.sources.columns import Layout, look_into
from recsys_spark.data.sources.database import look_at_table, read_table
from recsys_spark.data.sources.delta import look_at_delta, scan_delta
from recsys_spark.data.sources.failures import reading
from recsys_spark.data.sources.files import SourceFile, find_files, must_be_alone, with_content_hashes
from recsys_spark.data.sources.known import Known, came_back
from recsys_spark.data.sources.mapping import FILE, check_mapping, mapped, their_columns
from recsys_spark.data.sources.parquet import scan_parquet, unreadable
from recsys_spark.data.sources.text import scan_csv, scan_jsonl
from recsys_spark.errors import ConfigError, InputError

_FILE_FORMATS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True)
class Delivery:
    """What one source holds that bronze does not: its files and their rows, None where nothing is new.

    rows: source_file, row (from 0 in its file), malformed, and the mapped fields as texts. row_count: how
    many they are by the files themselves (lines, footers), for what is written to be compared with.
    """

    files: list[SourceFile]
    rows: DataFrame | None
    notes: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    row_count: int = 0


def new_deliveries(
    spark: SparkSession,
    sources: Mapping[str, Source],
    *,
    places: Mapping[str, str],
    known: Mapping[str, Known],
) -> dict[str, Delivery]:
    """The new deliveries of all sources; places: source -> resolved path.

    Nothing is read before every file of every source was looked into, so that one error lists all that
    changed. Text files are then read to their end once; what raises here leaves bronze as it was.
    Raises ConfigError for what the configuration or the columns have wrong, InputError for what
    cannot be read.
    """
    for name, source in sources.items():
        check_mapping(name, source)
    before = {name: known.get(name, Known()) for name in sources}
    layouts = {
        name: _look(spark, name, source, places[name], before[name]) for name, source in sources.items()
    }
    drift.require_same(sources, layouts, {name: taken.columns for name, taken in before.items()})
    return {
        name: _take(spark, name, source, places[name], layouts[name], before[name])
        for name, source in sources.items()
    }


def read_source(spark: SparkSession, name: str, source: Source, files: Sequence[SourceFile]) -> DataFrame:
    """One row per row of the given files: source_file, row (from 0 in its file), malformed, and the payload.

    Raises ConfigError where the mapping names columns that the files do not have, InputError where
    a file cannot be read or is empty.
    """
    check_mapping(name, source)
    layouts = [look_into(spark, name, source, file) for file in files]
    drift.require_same({name: source}, {name: layouts}, {})
    return _read_files(spark, name, source, layouts)[0]


def _look(spark: SparkSession, name: str, source: Source, path: str, known: Known) -> list[Layout]:
    """What is new and which columns it has; a database's table always, for only its rows can tell."""
    if source.format == "jdbc":
        with reading(name, source, source.table):
            return [look_at_table(spark, name, source)]
    if source.format == "delta":
        with reading(name, source, path):
            layout = look_at_delta(spark, name, source, path)
        return [layout] if known.new([layout.file]) else []
    files = with_content_hashes(spark, find_files(spark, name, path))
    return [look_into(spark, name, source, file) for file in known.new(files)]


def _take(
    spark: SparkSession, name: str, source: Source, path: str, layouts: list[Layout], known: Known
) -> Delivery:
    notes = drift.notes(source, layouts, known.columns)
    columns = drift.columns_of(layouts)
    if not layouts:
        return Delivery([], None)
    files = [layout.file for layout in layouts]
    if source.format == "jdbc":
        with reading(name, source, source.table):
            table = read_table(spark, name, source)
        files = known.new(table.parts)
        rows: DataFrame = table.rows.where(F.col("source_file").isin([part.path for part in files]))
        count, is_empty = sum(part.size for part in files), not table.parts
    elif source.format == "delta":
        with reading(name, source, path):
            number = int(layouts[0].file.uri.rsplit("@v", maxsplit=1)[1])
            scanned = scan_delta(spark, source, path, layouts[0], number)
            rows, count = mapped(scanned.frame, source), sum(scanned.rows.values())
            is_empty = count == 0
    else:
        rows, count = _read_files(spark, name, source, layouts)
        is_empty = count == 0
    if is_empty and not known.contents:
        raise InputError(
            f"source {name!r}: {path} holds no rows. Expected {source.kind}. Next: check the delivery."
        )
    if is_empty or not files:
        return Delivery([], None, ("holds no rows",) if is_empty else ())
    return Delivery(files, rows, (*notes, *_again(files, known)), columns, count)


def _again(files: Sequence[SourceFile], known: Known) -> list[str]:
    again = [file for file in files if one_slash(file.uri) in known.contents]
    back = [file.name for file in again if came_back(file)]
    other = [file.name for file in again if not came_back(file)]
    names_of = {"other content": other, "content that it had before": back}
    return [f"{_shown(names)} delivered again with {what}" for what, names in names_of.items() if names]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read_files(
    spark: SparkSession, name: str, source: Source, layouts: Sequence[Layout]
) -> tuple[DataFrame, int]:
    """Mapped rows of files of any number of layouts, and how many there are."""
    groups: dict[object, list[Layout]] = {}
    for layout in layouts:
        groups.setdefault(_reading_key(source, layout), []).append(layout)
    rows, count = [], 0
    for group in groups.values():
        with reading(name, source, group[0].file.path):
            scanned, size = _scan(spark, source, group)
            rows.append(mapped(_with_path_values(scanned, source, group[0]), source))
        count += size
    return reduce(DataFrame.unionByName, rows), count


def _reading_key(source: Source, layout: Layout) -> object:
    """Files of equal keys are read as one."""
    from_path = tuple(sorted(key for key in layout.from_path if key in their_columns(source)))
    if must_be_alone(layout.file.path):
        return layout.file.path
    if source.format == "parquet":
        types = tuple(sorted(pair for pair in layout.columns if pair[0] in their_columns(source)))
        return types, from_path
    return (layout.names if source.format == "csv" else ()), from_path


def _scan(spark: SparkSession, source: Source, layouts: list[Layout]) -> tuple[DataFrame, int]:
    if source.format == "parquet":
        refused = [sentence for layout in layouts for sentence in unreadable(source, layout)]
        if refused:
            raise ConfigError(" ".join(refused))
        return scan_parquet(spark, source, layouts), sum(layout.rows or 0 for layout in layouts)
    scan = scan_csv if source.format == "csv" else scan_jsonl
    scanned = scan(spark, source, layouts)
    return scanned.frame, sum(scanned.rows.values())


def _with_path_values(scanned: DataFrame, source: Source, layout: Layout) -> DataFrame:
    """Adds the columns that the section reads and only the folders of the path name."""
    values = {key: _path_value(key) for key in their_columns(source) if key in layout.from_path}
    return scanned.withColumns(values) if values else scanned


def _path_value(key: str) -> Column:
    value = F.regexp_extract(FILE, f"/{key}=([^/]*)/", 1)
    for _ in range(2):  # once for the URI, once for what Hive escapes in folder names
        value = F.url_decode(F.replace(value, F.lit("+"), F.lit("%2B")))
    return value
