"""Poison: what a delivery may hold at its worst, and what becomes of each kind.

Rows are judged one by one; whole files are refused with a sentence before anything is written. The
table of the README is made of these lists.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TAKEN, DROPPED = "taken as it is", "no row"


@dataclass(frozen=True)
class Row:
    """One line of the CSV (or JSON lines) delivery; `fate` is a reject reason, TAKEN or DROPPED.

    Lines of CSV: id,user,item,at,pieces,value.
    """

    kind: str
    line: bytes
    fate: str

    @property
    def event_id(self) -> str:
        return self.line.removeprefix(b'{"id":"').split(b",")[0].rstrip(b'"').decode()


@dataclass(frozen=True)
class File:
    """One file that is refused, and how the sentence goes on."""

    kind: str
    name: str
    content: bytes
    told: str


def _line(event_id: str, **changed: str) -> bytes:
    fields = {"user": "u", "item": "i", "at": "2024-04-01", "pieces": "1", "value": "1", **changed}
    return ",".join((event_id, *fields.values())).encode()


CSV_HEADER = b"\xef\xbb\xbfid,user,item,at,pieces,value"
CSV_ROWS = (
    Row("byte order mark before the header, DOS line ends", _line("bom"), TAKEN),
    Row("missing id", _line("no-user", user=""), "missing_user_id"),
    Row("blank id", _line("blank-item", item="   "), "missing_item_id"),
    Row("NUL in an id", _line("nul", user="u\0l"), TAKEN),
    Row("emoji in an id", _line("emoji", user="😀"), TAKEN),
    Row("id of 10 kB", _line("long-id", user="u" * 10_000), "overlong_id"),
    Row("formula as an id (`=cmd|' /C calc'!A0`)", _line("formula", item="=cmd|' /C calc'!A0"), TAKEN),
    Row("`<script>` as an id", _line("script", item="<script>alert(1)</script>"), TAKEN),
    Row("NaN", _line("nan", pieces="NaN"), "bad_quantity"),
    Row("infinite number", _line("inf", value="-Infinity"), "bad_value"),
    Row("1e308", _line("huge", value="1e308"), "bad_value"),
    Row("decimal comma", _line("comma", value='"1,5"'), "bad_value"),
    Row("year 9999", _line("y9999", at="9999-12-31 23:59:59"), "future_time"),
    Row("year 20000", _line("y20000", at="+20000-01-01"), "future_time"),
    Row("epoch 0", _line("epoch", at="1970-01-01 00:00:00"), "before_epoch"),
    Row("a time that is none", _line("time", at="yesterday"), "unparsable_time"),
    Row("quote that its line does not close", _line("open", value='"1'), "malformed_row"),
    Row("field too many", _line("many") + b",7", "malformed_row"),
    Row("field too few", b"few,u,i,2024-04-01", "malformed_row"),
    Row("30,000 separators", b"separators" + b"," * 30_000, "malformed_row"),
    Row("line of more than a million characters", _line("wide", user="w" * 1_000_001), "malformed_row"),
    Row("bytes that are not of the encoding", b"latin,M\xfcller,i,2024-04-01,1,1", "malformed_row"),
    Row("blank line", b"", DROPPED),
)
JSON_ROWS = (
    Row("half-written JSON line", b'{"id": "half", "user": "u", "it', "malformed_row"),
    Row("JSON that is no object", b'["array", "u", "i"]', "malformed_row"),
    Row(
        "JSON nested 5,000 deep",
        b'{"id": "deep", "user": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "malformed_row",
    ),
    Row(
        "JSON with an unknown key", b'{"id":"new","user":"u","item":"i","at":"2024-04-01","x":{"y":1}}', TAKEN
    ),
    Row(
        "JSON number as an id",
        b'{"id":"number","user":12345678901234567890,"item":1,"at":"2024-04-01"}',
        TAKEN,
    ),
)


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


def table() -> str:
    """The README's table."""
    rows = (*CSV_ROWS, *JSON_ROWS)
    told = {TAKEN: TAKEN, DROPPED: DROPPED}
    fates = [(row.kind, told.get(row.fate, f"quarantined: `{row.fate}`")) for row in rows]
    refused = [(file.kind, f"refused: … {file.told} …") for file in FILES]
    lines = [f"| {kind.replace('|', chr(92) + '|')} | {fate} |" for kind, fate in (*fates, *refused, *OTHERS)]
    return "\n".join(("| poison | what becomes of it |", "|---|---|", *lines))


def write(folder: Path, rows: tuple[Row, ...], name: str, header: bytes = b"") -> Path:
    """The rows as one file with DOS line ends."""
    lines = ([header] if header else []) + [row.line for row in rows]
    path = folder / name
    path.write_bytes(b"\r\n".join(lines) + b"\r\n")
    return path
