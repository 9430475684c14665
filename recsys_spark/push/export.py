"""Lists for machines (JSON Lines) and for people (CSV), one line at a time."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from recsys_spark.lake.workers import settle

# Legal in JSON, but some readers split lines at them, and lone surrogates cannot be written as UTF-8.
_AWKWARD = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
# OWASP, "CSV Injection": what a spreadsheet takes for the start of a formula, in full width too.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

# What the export says of a list, and of each of its slots.
_OF_LIST = ("run_date", "channel", "campaign", "user_id", "arm", "model_version", "run_id")
_OF_SLOT = ("rank", "item_id", "title", "category", "brand", "score", "source", "reason", "propensity")
# The same as templates of JSON, keys sorted: a slot by place, a list by name.
_SLOT_KEYS = sorted(_OF_SLOT)
_SLOT = "{" + ",".join(f'"{name}":%s' for name in _SLOT_KEYS) + "}"
_LIST = "{" + ",".join(f'"{name}":%({name})s' for name in sorted([*_OF_LIST, "items"])) + "}\n"


def export_lines(slots: DataFrame) -> DataFrame:
    """One row is a list with its line of the export: (campaign, user_id, run_id, line), by campaign and user.

    `slots` are rows of gold.recommendations with title, category and brand. Spark's workers render them,
    since that takes longer than all else of a delivery; a retried task gives the same lines again. Partitions
    are ranges of (campaign, user_id), so no list is torn.
    """

    def render(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        open_list = _List()
        for batch in batches:
            yield _closed(list(open_list.followed_by(batch)))
        yield _closed([open_list.line()] if open_list.head else [])

    ordered = slots.select(*_OF_LIST, *_OF_SLOT).repartitionByRange("campaign", "user_id")
    return ordered.sortWithinPartitions("campaign", "user_id", "rank").mapInArrow(
        render, "campaign string, user_id string, run_id string, line string"
    )


_Line = tuple[str, str, str, str]


def _closed(lines: Sequence[_Line]) -> pa.RecordBatch:
    columns = list(zip(*lines, strict=True)) or [()] * 4
    names = ("campaign", "user_id", "run_id", "line")
    return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in columns], names=names)


@dataclass
class _List:
    """One user's list under way: who and which campaign, what its line begins and ends with, its slots.

    Texts are made column by column, of each distinct value once: a fifth of what a dictionary per slot costs.
    """

    head: tuple[str, str, str] | None = None
    texts: dict[str, str] = field(default_factory=dict)
    slots: list[str] = field(default_factory=list)

    def followed_by(self, batch: pa.RecordBatch) -> Iterator[_Line]:
        """Take a batch of slots in; the lines of the lists that are whole now."""
        if batch.num_rows == 0:
            return
        slots = [
            _SLOT % row for row in zip(*(_texts(batch.column(name)) for name in _SLOT_KEYS), strict=True)
        ]
        is_new = np.zeros(batch.num_rows, np.bool_)
        for name in ("campaign", "user_id"):
            column = batch.column(name)
            is_new[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        starts = [0, *np.flatnonzero(is_new).tolist()]
        first = batch.take(pa.array(starts))
        heads = zip(
            *(first.column(name).to_pylist() for name in ("campaign", "user_id", "run_id")), strict=True
        )
        texts = zip(*(_texts(first.column(name)) for name in _OF_LIST), strict=True)
        ends = [*starts[1:], batch.num_rows]
        for start, end, who, text in zip(starts, ends, heads, texts, strict=True):
            if self.head is not None and self.head[:2] != who[:2]:
                yield self.line()
                self.slots = []
            if not self.slots:
                self.head, self.texts = who, dict(zip(_OF_LIST, text, strict=True))
            self.slots.extend(slots[start:end])

    def line(self) -> _Line:
        head: Any = self.head
        return (*head, _LIST % (self.texts | {"items": f"[{','.join(self.slots)}]"}))


def _texts(column: pa.Array) -> list[str]:
    """The values as JSON, each distinct one rendered once."""
    encoded = column.dictionary_encode()
    texts = [*(_text(value) for value in encoded.dictionary.to_pylist()), "null"]
    return [texts[at] for at in pc.fill_null(encoded.indices, len(texts) - 1).to_pylist()]


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
