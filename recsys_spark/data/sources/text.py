"""CSV and JSON lines as frames of texts; a line that cannot be read is kept as it came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from recsys_spark.config.sections import Source
from recsys_spark.data.kinds.rules import any_of
from recsys_spark.data.sources.columns import Layout
from recsys_spark.data.sources.files import literal, read_options
from recsys_spark.data.sources.lines import Numbered, numbered
from recsys_spark.data.sources.mapping import EXACT_DOUBLE, FILE, MALFORMED, ROW, is_whole, their_columns
from recsys_spark.errors import ConfigError
from recsys_spark.runtime.session_settings import session_settings

# A longer line is an accident (a lost line end, a stray quote), and would cost every parser its memory.
MAX_LINE = 1_000_000
_RAW, _PARSED, _LINE = "__recsys_raw", "__recsys_parsed", "value"
_REPLACED = "\ufffd"
_WIDE = ("UTF-16", "UTF-32")
# Spark 4 alone offers seven charsets and ends the job at a wrong byte; with these, frames may use every
# charset of Java, and replace what is none of its characters.
_ALL_CHARSETS = {"spark.sql.legacy.javaCharsets": "true", "spark.sql.legacy.codingErrorAction": "true"}


def scan_csv(spark: SparkSession, source: Source, layouts: Sequence[Layout]) -> Numbered:
    """Rows of CSV files that have the same header: the columns that the section reads, as texts."""
    paths = [layout.file.path for layout in layouts]
    names = layouts[0].names
    if source.quoted_newlines or is_wide(source.encoding):
        return _scan_records(spark, source, paths, names)
    lines = numbered(_lines(spark, source, paths), is_row=_is_filled())
    header = 1 if source.header else 0
    body = lines.frame.where((F.col(ROW) >= header) & _is_filled())
    # Inner names by position: whatever characters theirs have, no two are the same.
    inner = [f"_c{place}" for place in range(len(names))]
    parsed = body.withColumn(
        _PARSED,
        F.from_csv(F.when(_is_readable(source), F.col(_LINE)), _strings(inner).simpleString(), _csv(source)),
    )
    is_broken = F.col(_PARSED).isNull() | F.col(f"{_PARSED}.{_RAW}").isNotNull()
    if source.quote:
        is_broken = is_broken | _is_unclosed(source, F.col(f"{_PARSED}.{inner[-1]}"))
        is_broken = is_broken | _is_other_dialect(source, inner)
    return Numbered(
        parsed.select(
            FILE,
            (F.col(ROW) - header).alias(ROW),
            F.when(is_broken, F.make_valid_utf8(_LINE)).alias(MALFORMED),
            *[
                F.col(f"{_PARSED}.{place}").alias(name)
                for place, name in zip(inner, names, strict=True)
                if name in their_columns(source)
            ],
        ),
        {file: max(rows - header, 0) for file, rows in lines.rows.items()},
    )


def scan_jsonl(spark: SparkSession, source: Source, layouts: Sequence[Layout]) -> Numbered:
    """Rows of JSON lines: the keys that the section reads, as texts; lists and objects as JSON."""
    if is_wide(source.encoding):
        raise ConfigError(f"JSON lines in {source.encoding} cannot be read. Expected UTF-8.")
    paths = [layout.file.path for layout in layouts]
    lines = numbered(_lines(spark, source, paths), is_row=_is_filled())
    keys = [key for key in their_columns(source) if all(key not in layout.from_path for layout in layouts)]
    is_object = _is_readable(source) & F.col(_LINE).rlike(r"^\s*\{")
    parsed = lines.frame.where(_is_filled()).withColumn(
        _PARSED,
        F.from_json(F.when(is_object, F.col(_LINE)), _strings(keys), {"columnNameOfCorruptRecord": _RAW}),
    )
    is_broken = F.col(_PARSED).isNull() | F.col(f"{_PARSED}.{_RAW}").isNotNull()
    values = []
    for key in keys:
        value = F.col(_PARSED).getField(key)
        if any(field.endswith("_id") for field in their_columns(source)[key]):
            number, is_float = value.try_cast("double"), _is_json_float(key, value)
            is_id = is_whole(number, below=EXACT_DOUBLE)
            is_broken = is_broken | F.coalesce(is_float & ~is_id, F.lit(False))
            value = F.when(is_float & is_id, number.try_cast("long").cast("string")).otherwise(value)
        values.append(value.alias(key))
    raw = F.when(is_broken, F.make_valid_utf8(_LINE)).alias(MALFORMED)
    return Numbered(parsed.select(FILE, ROW, raw, *values), lines.rows)


def is_wide(encoding: str) -> bool:
    """Whether characters have two or four bytes, so that lines cannot be found by a byte."""
    return encoding.upper().startswith(_WIDE)


def _lines(spark: SparkSession, source: Source, paths: Sequence[str]) -> DataFrame:
    lines = spark.read.options(**read_options(paths)).text(literal(paths))
    if source.encoding.upper() in {"UTF-8", "UTF8", "US-ASCII"}:
        return lines
    _require_charset(spark, source)
    with session_settings(spark, _ALL_CHARSETS):
        decoded = F.decode(F.col(_LINE).cast("binary"), source.encoding).alias(_LINE)
        return lines.select(decoded, "_metadata")


def _is_filled() -> Column:
    """Whether the line is a row: blank ones are none."""
    return F.trim(_LINE) != ""


def _is_readable(source: Source) -> Column:
    """Whether the line's bytes are characters of its encoding, and not more than a row can be."""
    is_utf8 = source.encoding.upper() in {"UTF-8", "UTF8", "US-ASCII"}
    is_text = F.is_valid_utf8(_LINE) if is_utf8 else ~F.contains(F.col(_LINE), F.lit(_REPLACED))
    return is_text & (F.length(_LINE) <= MAX_LINE)


def _is_unclosed(source: Source, last: Column) -> Column:
    """Whether the line's last field opens a quote that the line does not close: a line end was in it."""
    quote, escaped = source.quote, (source.escape or source.quote) + source.quote
    mark, line = F.lit(quote), F.col(_LINE)
    if escaped != quote * 2:
        line = F.replace(line, F.lit(escaped), F.lit(""))
    without = F.length(F.replace(line, mark, F.lit("")))
    is_odd = ((F.length(line) - without) / len(quote)) % 2 == 1
    tail = F.concat(mark, F.replace(F.coalesce(last, F.lit("")), mark, F.lit(escaped)))
    return is_odd & F.endswith(F.col(_LINE), tail)


def _is_other_dialect(source: Source, inner: Sequence[str]) -> Column:
    r"""Whether a field kept its quotes, having others within that are escaped as `escape` does not say.

    `"Pizza 12\" deluxe"` where quotes are doubled, `"Pizza 12"" deluxe"` where they have a backslash.
    """
    mark = F.lit(source.quote * 2 if source.escape else "\\" + source.quote)
    # Few lines have such a pair, and only of those every field is looked at.
    fields = [F.col(f"{_PARSED}.{place}") for place in inner]
    kept = [F.startswith(field, F.lit(source.quote)) & F.contains(field, mark) for field in fields]
    return F.contains(F.col(_LINE), mark) & F.coalesce(any_of(kept), F.lit(False))


def _is_json_float(key: str, value: Column) -> Column:
    """Whether the key's value is a number with a point or an exponent, and not a text that looks like one."""
    # Digits and the minus are below the colon in ASCII; of those few have a point or a letter.
    may_be = (value < F.lit(":")) & any_of(F.contains(value, F.lit(mark)) for mark in ".eE")
    is_number = value.rlike(r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$")
    return may_be & is_number & F.col(_LINE).rlike(rf'"{re.escape(key)}"\s*:\s*-?\d')


def _scan_records(
    spark: SparkSession, source: Source, paths: Sequence[str], names: Sequence[str]
) -> Numbered:
    """CSV whose records may span lines: Spark reads each file as a whole, one task a file."""
    inner = [f"_c{place}" for place in range(len(names))]
    options = {
        **_csv(source),
        **read_options(paths),
        "multiLine": "true",
        "header": str(source.header).lower(),
    }
    options |= {"encoding": source.encoding, "columnPruning": "false", "maxCharsPerColumn": str(MAX_LINE)}
    _require_charset(spark, source)
    with session_settings(spark, _ALL_CHARSETS):
        records = numbered(spark.read.options(**options).schema(_strings(inner)).csv(literal(paths)))
    wanted = [
        F.col(place).alias(name)
        for place, name in zip(inner, names, strict=True)
        if name in their_columns(source)
    ]
    return Numbered(records.frame.select(FILE, ROW, F.col(_RAW).alias(MALFORMED), *wanted), records.rows)


def _csv(source: Source) -> dict[str, str]:
    return {
        "sep": source.separator,
        "quote": source.quote,
        "escape": source.escape or source.quote or "\\",
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _RAW,
        # With the default a row of many separators ends the night.
        "maxColumns": str(MAX_LINE + 1),
    }


def _strings(names: Sequence[str]) -> StructType:
    return StructType([StructField(name, StringType()) for name in (*names, _RAW)])


def _require_charset(spark: SparkSession, source: Source) -> None:
    jvm: Any = spark.sparkContext._jvm  # noqa: SLF001 - Java's list of encodings, not Python's
    if not jvm.java.nio.charset.Charset.isSupported(source.encoding):
        raise ConfigError(f"encoding {source.encoding!r} is not one that Java knows.")
