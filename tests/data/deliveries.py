"""A tiny shop's files, the sources that read them, and stages that are stopped while they take them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys_spark.config.sections import Source
from recsys_spark.lake.store import Lake
from recsys_spark.lake.tables import Table
from tests.settings import a_source

KEYS = {"event_id": "id", "user_id": "user", "item_id": "item", "event_at": "at"}


def events_in(path: Path, **given: Any) -> Source:
    """CSV of events: their ids are `KEYS`, unless other columns are given."""
    return a_source(kind="interactions", format="csv", path=f"{path}", **{"columns": KEYS, **given})


def two_items(folder: Path) -> Source:
    """The items i1 and i2, written into the folder."""
    path = folder / "items.jsonl"
    path.write_text('{"sku":"i1","name":"tea"}\n{"sku":"i2","name":"tea"}\n', encoding="utf-8")
    return a_source(kind="items", format="jsonl", path=f"{path}", columns={"item_id": "sku", "title": "name"})


def stopped(*_: object, **__: object) -> None:
    """In the place of any function: the run ends here."""
    raise KeyboardInterrupt


def stopping(write: Callable[..., None], table: Table, *, after: bool) -> Callable[..., None]:
    """The lake's write, but for a stop before or after it where it is into the table."""

    def writing(lake: Lake, into: Table, *arguments: object, **named: object) -> None:
        if into != table or after:
            write(lake, into, *arguments, **named)
        if into == table:
            stopped()

    return writing
