"""A made-up shop for nights in tests: 200 users, 120 items, half a year, with known poison in it."""

from __future__ import annotations

import csv
import json
import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.data.sources.poison import CSV_HEADER, CSV_ROWS, DROPPED, JSON_ROWS, TAKEN, write

RUN_DATE = "2024-06-02"
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
# Open every fifth day: a table by date is then 36 files and not 180, which a night reads again and again.
USERS, ITEMS, DAYS, OPEN_EVERY = 200, 120, 180, 5
CATEGORIES = ("tea", "coffee", "bread", "cheese", "fruit", "soap")
WORDS = ("green", "dark", "fresh", "smoked", "sweet", "salted", "large", "small")
# Of items that sell: what a spreadsheet would run, and what a page would.
POISONED_TITLES = {0: "=cmd|' /C calc'!A0 tea", 1: "<script>alert(1)</script> coffee"}
# Users of poisoned rows that are taken as they are: with consent, and without a row in users.csv.
STRANGERS, UNASKED = ("u", "u\0l", "😀"), ("12345678901234567890",)
LISTS = USERS // 2 + USERS + len(STRANGERS) + len(UNASKED)
OUTCOMES = 60


@dataclass(frozen=True)
class Shop:
    """Where the files lie, and how many rows of events are good, rejected and repeated.

    reasons: how many rows of the poisoned deliveries are rejected, by their first reason.
    """

    folder: Path
    good: int
    rejected: int
    repeated: int
    reasons: Counter[str]


def open_shop(folder: Path, *, seed: int = 11) -> Shop:
    """Write events, users, audiences (CSV), items, outcomes (JSON lines) and poisoned events (both); the
    same for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    events = _events(draw)
    poison = [
        {"id": "p1", "user": "", "item": "i001", "at": "2024-03-01 10:00:00", "pieces": "1"},
        {"id": "p2", "user": "u001", "item": "   ", "at": "2024-03-01 10:00:00", "pieces": "1"},
        {"id": "p3", "user": "u001", "item": "i001", "at": "yesterday", "pieces": "1"},
        {"id": "p4", "user": "u001", "item": "i001", "at": "9999-12-31 00:00:00", "pieces": "1"},
        {"id": "p5", "user": "u001", "item": "i001", "at": "2024-03-01 10:00:00", "pieces": "NaN"},
        {"id": "p6", "user": "u001", "item": "i001", "at": "1969-12-31 23:00:00", "pieces": "1"},
    ]
    repeats = [dict(event) for event in draw.sample(events, 25)]
    rows = events + poison + repeats
    draw.shuffle(rows)
    _write_csv(folder / "events.csv", rows)
    _write_items(folder / "items.jsonl")
    users = [
        {"user": f"u{u:03d}", "group": f"group {u % 4}", "consent": str(u % 10 != 0).lower()}
        for u in range(USERS)
    ]
    users += [{"user": user, "group": "strangers", "consent": "true"} for user in STRANGERS]
    _write_csv(folder / "users.csv", users)
    members = [{"name": "spring", "user": f"u{u:03d}", "until": "2024-07-01"} for u in range(0, USERS, 2)]
    _write_csv(folder / "audiences.csv", members)
    _write_outcomes(folder / "outcomes.jsonl", events)
    poisoned = (*CSV_ROWS, *JSON_ROWS)
    write(folder, CSV_ROWS, "poison.csv", CSV_HEADER)
    write(folder, JSON_ROWS, "poison.jsonl")
    reasons = Counter(row.fate for row in poisoned if row.fate not in {TAKEN, DROPPED})
    good = len(events) + sum(row.fate == TAKEN for row in poisoned)
    return Shop(folder, good, len(poison) + reasons.total(), len(repeats), reasons)


def _write_outcomes(path: Path, events: list[dict[str, str]]) -> None:
    """What became of mails of the day before the run date; one row of no known type, and one twice."""
    rows = [
        {
            "id": f"o{number:03d}",
            "night": "2024-06-01",
            "list": "fresh",
            "to": event["user"],
            "product": event["item"],
            "what": ("impression", "open", "click", "purchase")[number % 4],
            "at": f"2024-06-02 08:00:{number:02d}",
        }
        for number, event in enumerate(events[:OUTCOMES])
    ]
    rows += [{**rows[0], "id": "applauded", "what": "applause"}, rows[1]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _events(draw: random.Random) -> list[dict[str, str]]:
    """Each user loves one category, buys a few staples of it again and again, and sometimes strays."""
    rows = []
    for user in range(USERS):
        love = user % len(CATEGORIES)
        own = [item for item in range(ITEMS) if item % len(CATEGORIES) == love]
        staples = draw.sample(own, 3)
        for _ in range(draw.randint(15, 45)):
            pick = draw.random()
            item = draw.choice(staples if pick < 0.5 else own if pick < 0.85 else range(ITEMS))
            at = FIRST_DAY + timedelta(
                days=draw.randrange(0, DAYS, OPEN_EVERY), seconds=draw.randrange(86400)
            )
            rows.append(
                {
                    "id": f"e{len(rows) + user * 1000:06d}",
                    "user": f"u{user:03d}",
                    "item": f"i{item:03d}",
                    "at": at.strftime("%Y-%m-%d %H:%M:%S"),
                    "pieces": str(draw.randint(1, 3)),
                }
            )
    return rows


def _write_items(path: Path) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for item in range(ITEMS):
            category = CATEGORIES[item % len(CATEGORIES)]
            words = f"{WORDS[item % len(WORDS)]} {WORDS[(item // 7) % len(WORDS)]}"
            row = {
                "sku": f"i{item:03d}",
                "name": POISONED_TITLES.get(item, f"{words} {category}"),
                "kind": category,
                "maker": f"maker {item % 9}",
            }
            lines.write(json.dumps(row) + "\n")


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


PLACES = """
[lake]
path = "{root}/lake"

[output]
path = "{root}/output"
"""

SOURCES = {
    "events": """
[sources.events]
kind = "interactions"
format = "csv"
path = "{shop}/events.csv"
constants = {{ event_type = "purchase" }}
columns = {{ event_id = "id", user_id = "user", item_id = "item", event_at = "at", quantity = "pieces" }}
""",
    "items": """
[sources.items]
kind = "items"
format = "jsonl"
path = "{shop}/items.jsonl"
columns = {{ item_id = "sku", title = "name", category = "kind", brand = "maker" }}
""",
    "users": """
[sources.users]
kind = "users"
format = "csv"
path = "{shop}/users.csv"
columns = {{ user_id = "user", segment = "group", is_consented = "consent" }}
""",
    "members": """
[sources.members]
kind = "audiences"
format = "csv"
path = "{shop}/audiences.csv"
columns = {{ audience = "name", user_id = "user", valid_to = "until" }}
""",
    "outcomes": """
[sources.outcomes]
kind = "outcomes"
format = "jsonl"
path = "{shop}/outcomes.jsonl"
constants = {{ channel = "email" }}
[sources.outcomes.columns]
event_id = "id"
run_date = "night"
campaign = "list"
user_id = "to"
item_id = "product"
outcome_type = "what"
event_at = "at"
""",
}

_POISONED = """
[sources.{name}]
kind = "interactions"
format = "{format}"
path = "{{shop}}/poison.{format}"
constants = {{{{ event_type = "purchase" }}}}
[sources.{name}.columns]
event_id = "id"
user_id = "user"
item_id = "item"
event_at = "at"
quantity = "pieces"
value = "value"
"""
SOURCES |= {
    f"poison_{form}": _POISONED.format(name=f"poison_{form}", format=form) for form in ("csv", "jsonl")
}

MODELS_AND_CAMPAIGNS = """
[als]
rank = 8
iterations = 3

[campaigns.again]
channel = "email"
audience = "spring"
k = 5
repeat_allowed = true
brand_name = "The Shop"
unsubscribe_url = "https://example.org/u"

[campaigns.fresh]
channel = "email"
k = 5
repeat_allowed = false
brand_name = "The Shop"
unsubscribe_url = "https://example.org/u"
"""


# Sessions of minutes on two cores: Java's second compiler and its parallel collector cost more than they
# save. The first compiler alone has room for 48 MB of code by default, and a night makes 95 MB: it would
# throw code away and make it again all the time.
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m -XX:+UseSerialGC -XX:MetaspaceSize=320m"


# For 6,000 rows compiling a plan takes longer than interpreting it, and planning it again after each of its
# stages longer than running it.
FEW_ROWS = """
spark.sql.codegen.wholeStage false
spark.sql.codegen.factoryMode NO_CODEGEN
spark.sql.adaptive.enabled false
spark.sql.shuffle.partitions 2
spark.databricks.delta.snapshotPartitions 1
"""


# Where two test runs go on side by side, one makes the night in this folder and the other looks at it.
SHARED_NIGHT, DONE = "TESTS_NIGHT", "_done"


def shared_night() -> Path | None:
    """The folder that both test runs know, or None for one that is alone."""
    return Path(os.environ[SHARED_NIGHT]) if SHARED_NIGHT in os.environ else None


def write_conf(
    folder: Path,
    *,
    base: Path,
    shop: Path,
    root: Path,
    extra: str = "",
    sources: Sequence[str] = tuple(SOURCES),
) -> Path:
    """A conf folder with the project's base.toml and an environment `slice` for these sources of the shop."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.toml").write_text((base / "base.toml").read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("spark-local.conf", "spark-cluster.conf"):
        quick = "".join(f"\nspark.{side}.extraJavaOptions {QUICK_JAVA}" for side in ("driver", "executor"))
        quick += FEW_ROWS
        (folder / name).write_text((base / name).read_text(encoding="utf-8") + quick, encoding="utf-8")
    given = "".join([PLACES, *(SOURCES[name] for name in sources), MODELS_AND_CAMPAIGNS])
    overlay = given.format(shop=shop, root=root) + extra
    (folder / "slice.toml").write_text(overlay, encoding="utf-8")
    return folder
