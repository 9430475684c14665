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
from itertools import groupby, islice
from operator import itemgetter

import pyarrow as pa
from pyspark.sql import DataFrame

from recsys_spark.lake.workers import settle

# Legal in JSON, but some readers split lines at them, and lone surrogates cannot be written as UTF-8.
_AWKWARD = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
# OWASP, "CSV Injection": what a spreadsheet takes for the start of a formula, in full width too.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

# What the export says of a list, and of each of its slots.
_OF_LIST = ("run_date", "channel", "campaign", "user_id", "arm", "model_version", "run_id")
_OF_SLOT = ("rank", "item_id", "title", "category", "brand", "score", "source", "reason", "propensity")
_LISTS_AT_ONCE = 256


def export_lines(slots: DataFrame) -> DataFrame:
    """One row is a list with its line of the export: (campaign, user_id, run_id, line), by campaign and user.

    `slots` are rows of gold.recommendations with title, category and brand. Spark's workers render them,
    since that takes longer than all else of a delivery; a retried task gives the same lines again. Partitions
    are ranges of (campaign, user_id), so no list is torn.
    """

    def render(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settle()
        rows = (row for batch in batches for row in batch.to_pylist())
        lists = (list(of) for _, of in groupby(rows, key=itemgetter("campaign", "user_id")))
        while some := list(islice(lists, _LISTS_AT_ONCE)):
            columns = {name: [of[0][name] for of in some] for name in ("campaign", "user_id", "run_id")}
            yield pa.RecordBatch.from_pydict({**columns, "line": [jsonl_line(_exported(of)) for of in some]})

    ordered = slots.select(*_OF_LIST, *_OF_SLOT).repartitionByRange("campaign", "user_id")
    return ordered.sortWithinPartitions("campaign", "user_id", "rank").mapInArrow(
        render, "campaign string, user_id string, run_id string, line string"
    )


def _exported(slots: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """One user's list for a machine: who, which campaign, and the slots in order."""
    return {
        **{name: slots[0][name] for name in _OF_LIST},
        "items": [{name: slot[name] for name in _OF_SLOT} for slot in slots],
    }


def jsonl_line(row: Mapping[str, object]) -> str:
    """One row as one line of JSON, newline included: keys sorted at every depth, UTF-8, instants in UTC.

    NaN and infinities, which JSON does not have, become null. An instant without a zone is taken as UTC,
    whatever the machine's clock says; `collect` gives instants in the machine's zone, Arrow in the session's.
    Raises TypeError on a value of another kind.

    >>> jsonl_line({"rank": 1, "item_id": "ä", "component_scores": {"b": float("nan"), "a": 0.5}})
    '{"component_scores":{"a":0.5,"b":null},"item_id":"ä","rank":1}\\n'
    """
    line = json.dumps(_plain(row), sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _AWKWARD.sub(lambda match: f"\\u{ord(match.group()):04x}", line) + "\n"


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
