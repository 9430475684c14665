"""Poison: what a delivery may hold at its worst, and what becomes of each kind.

Rows are judged one by one; whole files are refused with a sentence before anything is written. The
table of poison in docs/quality.md is made of these lists.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.sources.poison import CSV_HEADER, CSV_ROWS, DROPPED, JSON_ROWS, TAKEN


@dataclass(frozen=True)
class File:
    """One file that is refused, and how the sentence goes on."""

    kind: str
    name: str
    content: bytes
    sentence: str


def _parquet() -> bytes:
    file = io.BytesIO()
    columns = {
        "id": ["a"],
        "user": ["u"],
        "item": ["i"],
        "at": ["2024-04-01"],
        "pieces": ["1"],
        "value": ["1"],
    }
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


_CSV = CSV_HEADER + b"\nok,u,i,2024-04-01,1,1\n" * 500
_GZIP = gzip.compress(_CSV + bytes(range(33, 127)) * 500)
_DAMAGED = bytearray(_parquet())
_DAMAGED[-30:-12] = b"\xff" * 18
FILES = (
    File("file of 0 bytes", "none.csv", b"", "is empty (0 bytes)"),
    File("file without rows", "header.csv", CSV_HEADER + b"\n", "holds no rows"),
    File("truncated gzip", "cut.csv.gz", _GZIP[: len(_GZIP) // 2], "Unexpected end of input stream"),
    File("gzip that is none", "fake.csv.gz", b"id,user\n1,2\n", "not a gzip file"),
    File("truncated Parquet", "cut.parquet", _parquet()[:-9], "its footer is missing"),
    File("Parquet with a damaged footer", "bad.parquet", bytes(_DAMAGED), "its footer is damaged"),
    File("zip archive", "events.csv", b"PK\x03\x04" + _CSV, "it is a zip archive (unpack it)"),
    File("Parquet named .csv", "parquet.csv", _parquet(), "it is a Parquet file"),
    File(
        "UTF-16 where UTF-8 is said",
        "wide.csv",
        _CSV.decode("utf-8-sig").encode("utf-16"),
        "it is UTF-16 text",
    ),
    File(
        "columns that differ by case only",
        "case.csv",
        b"id,user,User,item,at,pieces,value\n",
        "columns 'user' and 'User' differ by case only",
    ),
    File(
        "renamed column",
        "renamed.csv",
        b"id,usr,item,at,pieces,value\n",
        "column 'user' (for user_id) not found. Did you mean usr?",
    ),
    File("only unfinished and hidden files", "events.csv._COPYING_", _CSV, "holds no files"),
)
OTHERS = (
    ("file that vanishes between listing and reading", "refused: it vanished between listing and reading"),
    ("Parquet damaged in the middle", "refused while bronze is written: cannot read …"),
    ("duplicate ids with different payload", "the latest delivery stands; the other counts as duplicate"),
)


def _by_four(kinds: list[str]) -> list[list[str]]:
    """No line of the page may be longer than a sentence."""
    return [kinds[start : start + 4] for start in range(0, len(kinds), 4)]


def table() -> str:
    """The table of docs/quality.md: rows of one fate together, some at a time."""
    kept = {TAKEN, DROPPED}
    by_fate: dict[str, list[str]] = {}
    for row in (*CSV_ROWS, *JSON_ROWS):
        fate = row.fate if row.fate in kept else f"quarantined: `{row.fate}`"
        by_fate.setdefault(fate, []).append(row.kind)
    fates = [("; ".join(some), fate) for fate, kinds in by_fate.items() for some in _by_four(kinds)]
    refused = [(file.kind, f"refused: … {file.sentence} …") for file in FILES]
    lines = [f"| {kind.replace('|', chr(92) + '|')} | {fate} |" for kind, fate in (*fates, *refused, *OTHERS)]
    return "\n".join(("| poison | what becomes of it |", "|---|---|", *lines))
