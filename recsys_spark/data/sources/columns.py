"""Which columns a delivered file has, from its head or footer alone."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Source
from recsys_spark.data.sources.failures import reading
from recsys_spark.data.sources.files import SourceFile, head, is_packed, path_values, tail
from recsys_spark.errors import ConfigError, InputError

_HEAD_BYTES = 1 << 18
_PARQUET_END = 8
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# What a text file is when it begins so; none of them is ever the first character of a delivered table.
_NOT_TEXT = {
    b"\x1f\x8b": "a gzip archive (name it .gz)",
    b"PK\x03\x04": "a zip archive (unpack it)",
    b"\xfd7zXZ": "an xz archive (unpack it)",
    b"\x28\xb5\x2f\xfd": "a zstd archive (name it .zst)",
    b"PAR1": "a Parquet file (set format = 'parquet')",
}


@dataclass(frozen=True)
class Layout:
    """A file and the columns that it has: (name, type), types of Parquet and tables only.

    `rows` is known of Parquet alone. A JSON file's columns are those of its first lines: `is_sample`.
    """

    file: SourceFile
    columns: tuple[tuple[str, str], ...]
    rows: int | None = None
    is_sample: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    @property
    def from_path(self) -> dict[str, str]:
        """Columns that the file's folders name and the file itself has not."""
        return {key: value for key, value in path_values(self.file).items() if key not in self.names}


def look_into(spark: SparkSession, name: str, source: Source, file: SourceFile) -> Layout:
    """The file's columns; InputError where it is empty, cut off, or not what the source says it is."""
    if file.size == 0:
        raise InputError(f"source {name!r}: {file.path} is empty (0 bytes). Expected rows of {source.kind}.")
    with reading(name, source, file.path):
        if source.format == "parquet":
            return _parquet(spark, name, file)
        text = _text(spark, name, source, file)
    if source.format == "jsonl":
        return Layout(file, tuple((key, "") for key in _json_keys(text)), is_sample=True)
    if source.header:
        columns = split_fields(_first_record(text, source), source)
        return Layout(file, tuple((column, "") for column in columns))
    _require_width(name, source, file, text)
    return Layout(file, tuple((column, "") for column in source.names))


def _text(spark: SparkSession, name: str, source: Source, file: SourceFile) -> str:
    start = head(spark, file, _HEAD_BYTES)
    what = "" if is_packed(spark, file) else _other_format(start)
    if not source.encoding.upper().startswith(("UTF-16", "UTF-32")) and start.startswith(_UTF16):
        what = "UTF-16 text (set encoding = 'UTF-16' for CSV, or convert it to UTF-8)"
    if what:
        raise InputError(f"source {name!r}: cannot read {file.path} as {source.format}: it is {what}.")
    try:
        return start.decode(source.encoding, errors="replace").removeprefix("\ufeff")
    except LookupError:
        raise ConfigError(f"sources.{name}.encoding is unknown: {source.encoding!r}.") from None


def _other_format(start: bytes) -> str:
    return next((what for magic, what in _NOT_TEXT.items() if start.startswith(magic)), "")


def _first_record(text: str, source: Source) -> str:
    """The header: the first line, or up to the first line end outside of quotes where those may wrap."""
    lines = re.split(r"(\r\n|\n|\r)", text)
    record = lines[0]
    for end, line in zip(lines[1::2], lines[2::2], strict=False):
        if not (source.quoted_newlines and source.quote and _quotes(record, source) % 2):
            break
        record += end + line
    return record


def _quotes(record: str, source: Source) -> int:
    """How many quotes open or close a field; of doubled ones it does not matter."""
    return record.replace(source.escape + source.quote, "" if source.escape else source.quote).count(
        source.quote
    )


def split_fields(record: str, source: Source) -> list[str]:
    """The fields of one CSV record: quotes removed, doubled (or escaped) quotes read as one."""
    separator, quote = re.escape(source.separator), re.escape(source.quote)
    escaped = (source.escape or source.quote) + source.quote
    plain = rf"(.*?)(?={separator}|\Z)"
    quoted = rf"{quote}((?:{re.escape(escaped)}|[^{quote}])*){quote}(?={separator}|\Z)"
    field = re.compile(rf"(?:{quoted})|(?:{plain})" if source.quote else plain, re.DOTALL)
    fields: list[str] = []
    at = 0
    while True:
        match = field.match(record, at)
        if match is None:
            return fields
        groups = match.groups()
        text = groups[0] if groups[0] is not None else groups[-1]
        fields.append(text.replace(escaped, source.quote) if source.quote else text)
        at = match.end() + len(source.separator)
        if at > len(record):
            return fields


def _require_width(name: str, source: Source, file: SourceFile, text: str) -> None:
    """Raise ConfigError where no line of the head has as many fields as the section names."""
    widths = [len(split_fields(line, source)) for line in re.split(r"\r\n|\n|\r", text)[:20] if line.strip()]
    if widths and len(source.names) not in widths:
        raise ConfigError(
            f"source {name!r}: {file.path} has {widths[0]} columns, sources.{name}.names lists "
            f"{len(source.names)}. Next: correct names (or separator)."
        )


def _json_keys(text: str) -> list[str]:
    keys: dict[str, None] = {}
    for line in re.split(r"\r\n|\n|\r", text):
        try:
            parsed = json.loads(line)
        except (ValueError, RecursionError):
            continue
        keys.update(dict.fromkeys(parsed if isinstance(parsed, dict) else ()))
    return list(keys)


def _parquet(spark: SparkSession, name: str, file: SourceFile) -> Layout:
    """Columns and number of rows from the footer, which is all that is read."""
    end = tail(spark, file, _PARQUET_END)
    length = struct.unpack("<I", end[:4])[0] if len(end) == _PARQUET_END else 0
    if end[4:] != b"PAR1" or length + _PARQUET_END >= file.size:
        raise InputError(
            f"source {name!r}: cannot read {file.path} as parquet: its footer is missing, so it is cut off "
            "or no Parquet file. Next: deliver it again."
        )
    try:
        footer = pq.ParquetFile(io.BytesIO(b"PAR1" + tail(spark, file, length + _PARQUET_END)))
        types = _parquet_types(footer)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"source {name!r}: cannot read {file.path} as parquet: its footer is damaged ({reason})."
        ) from None
    return Layout(file, types, rows=footer.metadata.num_rows)


def _parquet_types(footer: pq.ParquetFile) -> tuple[tuple[str, str], ...]:
    """Arrow's names of the types; `int96` for the timestamps that Arrow calls nanoseconds too."""
    leaves = [footer.schema.column(place) for place in range(len(footer.schema))]
    int96 = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}
    return tuple(
        (field.name, "int96" if field.name in int96 else _type_name(field.type))
        for field in footer.schema.to_arrow_schema()
    )


def _type_name(kind: pa.DataType) -> str:
    return str(kind.value_type) if pa.types.is_dictionary(kind) else str(kind)


def differing_by_case(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that are equal but for case, or wholly: [["User", "user"]]."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
