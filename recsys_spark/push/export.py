"""Lists for machines (JSON Lines) and for people (CSV), one line at a time."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from recsys_spark.runtime.batches import gathered
from recsys_spark.runtime.ranges import in_ranges

# Legal in JSON, but some readers split lines at them, and lone surrogates cannot be written as UTF-8.
_AWKWARD = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
# OWASP, "CSV Injection": what a spreadsheet takes for the start of a formula, in full width too.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

# What the export says of a list, and of each of its slots.
_OF_LIST = ("run_date", "channel", "campaign", "user_id", "arm", "model_version", "run_id")
_OF_SLOT = ("rank", "item_id", "title", "category", "brand", "score", "source", "reason", "propensity")
_LIST = ("campaign", "user_id")
_AT_ONCE = 16_384  # slots rendered together: each distinct value among them is made a text once


def export_lines(slots: DataFrame, *, at_once: int = _AT_ONCE) -> DataFrame:
    """One row is some hundred lists of a campaign: (campaign, run_id, user_ids, lines), by campaign and user.

    lines: each list's line of the export, one after the other; a row a list would cost the driver more than
    to write them. `slots` are rows of gold.recommendations with title, category and brand. Spark's workers
    render them, since that takes longer than all else of the stage; a retried task gives the same lines
    again. Partitions are ranges of (campaign, user_id), so no list is torn.
    """

    def render(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        torn: list[pa.RecordBatch] = []  # the last list so far: what follows may be of it
        for batch in gathered(batches, at_once):
            rows = _joined([*torn, batch])
            starts = _starts(rows)
            torn = [rows.slice(starts[-1])]
            if starts.size > 1:
                yield _chunks(_lines(rows.slice(0, starts[-1]), starts[:-1]))
        if torn:
            yield _chunks(_lines(torn[0], np.zeros(1, np.int64)))

    partitions = int(slots.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    ordered = in_ranges(
        slots.select(*_OF_LIST, *_OF_SLOT), _LIST, keys=slots.where("rank = 1"), partitions=partitions
    )
    return ordered.sortWithinPartitions(*_LIST, "rank").mapInArrow(
        render, "campaign string, run_id string, user_ids array<string>, lines string"
    )


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _starts(rows: pa.RecordBatch, names: Sequence[str] = _LIST) -> NDArray[np.int64]:
    """Where the rows begin that have the same values: the lists."""
    is_new = np.zeros(rows.num_rows, np.bool_)
    is_new[0] = True
    for name in names:
        column = rows.column(name)
        is_new[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_new)


def _lines(rows: pa.RecordBatch, starts: NDArray[np.int64]) -> pa.RecordBatch:
    """The lists that begin at `starts`, one line each.

    All is done column by column: a tenth of the time that Python takes slot by slot.
    """
    slots = _objects({name: _texts(rows.column(name)) for name in _OF_SLOT})
    ends = pa.array(np.append(starts, rows.num_rows).astype(np.int32))
    items = _concatenated("[", pc.binary_join(pa.ListArray.from_arrays(ends, slots), ","), "]")
    heads = rows.take(pa.array(starts))
    lines = _objects({**{name: _texts(heads.column(name)) for name in _OF_LIST}, "items": items}, end="}\n")
    names = ("campaign", "user_id", "run_id")
    return pa.RecordBatch.from_arrays(
        [*[heads.column(name) for name in names], lines], names=[*names, "line"]
    )


def _chunks(lists: pa.RecordBatch) -> pa.RecordBatch:
    """Lists (campaign, user_id, run_id, line) that follow each other in a campaign as one row."""
    starts = _starts(lists, ("campaign", "run_id"))
    offsets = pa.array(np.append(starts, lists.num_rows).astype(np.int32))
    heads = lists.take(pa.array(starts))
    lines = pc.binary_join(pa.ListArray.from_arrays(offsets, lists.column("line")), "")
    columns = {
        "campaign": heads.column("campaign"),
        "run_id": heads.column("run_id"),
        "user_ids": pa.ListArray.from_arrays(offsets, lists.column("user_id")),
        "lines": lines,
    }
    return pa.RecordBatch.from_arrays([*columns.values()], names=[*columns])


def _objects(texts: Mapping[str, pa.Array], *, end: str = "}") -> pa.Array:
    """An object of JSON a row from the members' texts, keys sorted."""
    parts: list[Any] = []
    for name in sorted(texts):
        parts += [f'{"," if parts else "{"}"{name}":', texts[name]]
    return _concatenated(*parts, end)


def _concatenated(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _texts(column: pa.Array) -> pa.Array:
    """The values as JSON, each distinct one rendered once."""
    encoded = column.dictionary_encode()
    texts = pa.array([_text(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pc.fill_null(texts.take(encoded.indices), "null")


def jsonl_line(row: Mapping[str, object]) -> str:
    """One row as one line of JSON, newline included: keys sorted at every depth, UTF-8, instants in UTC.

    NaN and infinities, which JSON does not have, become null. An instant without a zone is taken as UTC,
    whatever the machine's clock says; `collect` gives instants in the machine's zone, Arrow in the session's.
    Raises TypeError on a value of another kind.

    >>> jsonl_line({"rank": 1, "item_id": "ä", "component_scores": {"b": float("nan"), "a": 0.5}})
    '{"component_scores":{"a":0.5,"b":null},"item_id":"ä","rank":1}\\n'
    """
    return _text(row) + "\n"


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _text(value: object) -> str:
    if type(value) is float:  # most of what an export holds, and what has no awkward signs
        return repr(value) if math.isfinite(value) else "null"
    text = _ENCODER.encode(value if type(value) is str else _plain(value))
    return text if text.isascii() else _AWKWARD.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _plain(value: object) -> object:
    """The value in JSON's own kinds."""
    if hasattr(value, "asDict"):  # a row of Spark is a tuple, and would lose its names
        value = value.asDict()
    elif hasattr(value, "tolist"):  # numpy's scalars and arrays
        value = value.tolist()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)  # ours are UTC without saying so
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def csv_cell(value: object) -> str:
    """A cell for a spreadsheet. Text that would start a formula gets a quote in front; numbers stay numbers.

    >>> [csv_cell(v) for v in ("=cmd()", " +1", "tea", -3.5, None, True)]
    ["'=cmd()", "' +1", 'tea', '-3.5', '', 'true']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    text = str(value)
    # Some programs trim a cell before they read it, so blanks do not protect from what follows them.
    is_formula = text.startswith(_FORMULA_STARTS) or text.lstrip().startswith(_FORMULA_STARTS)
    return f"'{text}" if is_formula else text


def csv_line(values: Iterable[object]) -> str:
    """One row of CSV for people (RFC 4180, CRLF included), every cell guarded and quoted where needed."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow([csv_cell(value) for value in values])
    return buffer.getvalue()
