"""Poisoned rows: lines of a delivery at their worst, and what becomes of each.

Apart from torture.py, which has the files: what this needs is in every environment of the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


def _line(event_id: str, **changed: str) -> bytes:
    fields = {"user": "u", "item": "i", "at": "2024-04-01", "pieces": "1", "value": "1", **changed}
    return ",".join((event_id, *fields.values())).encode()


CSV_HEADER = b"\xef\xbb\xbfid,user,item,at,pieces,value"
CSV_ROWS = (
    Row("byte order mark before the header, DOS line ends", _line("bom"), TAKEN),
    Row("missing id", _line("no-user", user=""), "missing_user_id"),
    Row("blank id", _line("blank-item", item="   "), "missing_item_id"),
    Row(
        "null word as an id (`NULL`, `nan`, `n/a`, `\\N`)", _line("null-word", user="NULL"), "missing_user_id"
    ),
    Row("NUL in an id", _line("nul", user="u\0l"), TAKEN),
    Row("emoji in an id", _line("emoji", user="😀"), TAKEN),
    Row("id of 10 kB", _line("long-id", user="u" * 10_000), "overlong_id"),
    Row("formula as an id (`=cmd|' /C calc'!A0`)", _line("formula", item="=cmd|' /C calc'!A0"), TAKEN),
    Row("`<script>` as an id", _line("script", item="<script>alert(1)</script>"), TAKEN),
    Row("id of a text column that looks like a float (`13813.0`)", _line("float", item="13813.0"), TAKEN),
    Row("NaN", _line("nan", pieces="NaN"), "bad_quantity"),
    Row("infinite number", _line("inf", value="-Infinity"), "bad_value"),
    Row("1e308", _line("huge", value="1e308"), "bad_value"),
    Row("decimal comma", _line("comma", value='"1,5"'), "bad_value"),
    Row("year 9999", _line("y9999", at="9999-12-31 23:59:59"), "future_time"),
    Row("year 20000", _line("y20000", at="+20000-01-01"), "future_time"),
    Row("epoch 0", _line("epoch", at="1970-01-01 00:00:00"), "before_epoch"),
    Row("a time that is none", _line("time", at="yesterday"), "unparsable_time"),
    Row("a time without a date (`12:30`)", _line("clock", at="12:30"), "unparsable_time"),
    Row(
        'quotes of another dialect (`"Pizza 12\\" deluxe"`)',
        _line("dialect", item='"Pizza 12\\" deluxe"'),
        "malformed_row",
    ),
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
    Row(
        "JSON number with a fraction as an id (`12.5`)",
        b'{"id":"fraction","user":"u","item":12.5,"at":"2024-04-01"}',
        "malformed_row",
    ),
)


def write(folder: Path, rows: tuple[Row, ...], name: str, header: bytes = b"") -> Path:
    """The rows as one file with DOS line ends."""
    lines = ([header] if header else []) + [row.line for row in rows]
    path = folder / name
    path.write_bytes(b"\r\n".join(lines) + b"\r\n")
    return path
