"""Whatever the order, splitting and repetition of deliveries: the same silver and the same preferences.

Two shops' systems deliver events that are corrected, late, repeated, returned and cancelled. One lake takes
all in one night; another takes other files of the same rows, in several nights and in random order. Both must hold
what plain Python says: of every event its latest delivery.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Settings
from recsys_spark.data.cleaning import batch
from recsys_spark.data.reading import preferences_on
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import SILVER_INTERACTIONS, SILVER_QUARANTINE
from recsys_spark.stages import clean, ingest
from tests.data.deliveries import KEYS, events_in
from tests.data.test_events import Event, oracle
from tests.settings import demo_in
from tests.tables import bronze

FIRST = datetime(2024, 5, 1, tzinfo=UTC)
RUN_DATES = [date(2024, 5, 3), date(2024, 5, 6)]
HEADER = "id,user,item,what,at,pieces,undoes"
COLUMNS = KEYS | {"event_type": "what", "quantity": "pieces", "cancels_event_id": "undoes"}

Figures = dict[tuple[str, str], float]
Take = Callable[["World", list["File"], list["File"]], Figures]


@dataclass(frozen=True)
class Row:
    """One line of a file."""

    id: str
    user: str
    item: str
    what: str
    at: datetime
    pieces: str = ""
    undoes: str = ""

    def line(self, spelling: int = 0) -> str:
        there = self.at.astimezone(timezone(timedelta(hours=2)))
        at = there.isoformat() if spelling else f"{self.at:%Y-%m-%d %H:%M:%S}"
        return f"{self.id},{self.user},{self.item},{self.what},{at},{self.pieces},{self.undoes}"

    @property
    def key(self) -> str:
        """What silver calls it: its id, or a hash of its content but for the pieces."""
        content = f"{self.user}\0{self.item}\0{self.what}\0{self.at.timestamp() * 1e6:.0f}"
        return self.id or hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Sent:
    """A row as a source delivered it at noon of a day (from 1)."""

    source: str
    day: int
    row: Row

    @property
    def is_good(self) -> bool:
        return bool(self.row.user.strip("\t")) and self.row.at <= moment(self.day) + timedelta(days=1)


@dataclass(frozen=True)
class File:
    place: str
    day: int
    text: str
    rows: tuple[Sent, ...]


def moment(day: int) -> datetime:
    return FIRST + timedelta(days=day - 1, hours=12)


def made_up(draw: random.Random) -> list[Sent]:
    """Events of five days, delivered on their day or later, then corrected, in both sources, with ties."""
    sent = []
    for n in range(60):
        at = FIRST + timedelta(days=draw.randrange(5), seconds=draw.randrange(43200))
        row = Row(f"e{n:02d}", f"u{draw.randrange(4)}", f"i{draw.randrange(3)}", "purchase", at)
        row = replace(row, what=draw.choice(["purchase", "purchase", "view"]), pieces=draw.choice("123"))
        if n % 6 == 0:
            row = replace(row, pieces=draw.choice(["-1", "-2"]), what="purchase")
        elif n % 7 == 0:
            row = replace(row, undoes=f"e{draw.randrange(60):02d}")
        elif n % 8 == 1:
            row = replace(row, id="")
        day = (at - FIRST).days + 1
        first = Sent(draw.choice(["tills", "web"]), draw.choice([day, day, 5]), row)
        sent += [first, *corrections(draw, first)]
    poison = [Row("p1", "\t", "i1", "view", FIRST), Row("p2", "u1", "i1", "view", FIRST + timedelta(days=9))]
    return [*sent, *(Sent("web", 2, row) for row in poison)]


def corrections(draw: random.Random, first: Sent) -> Iterable[Sent]:
    """Up to two of one event: later, or by the other source at the same moment, changed or not."""
    row, other = first.row, "web" if first.source == "tills" else "tills"
    for _ in range(draw.randrange(3)):
        changed = replace(row, pieces=row.pieces[:-1] + draw.choice("456"))
        if row.id and draw.random() < 0.5:
            changed = replace(changed, at=row.at - timedelta(days=draw.randrange(1, 3)))
        if row.id and draw.random() < 0.3:
            changed = replace(changed, user=f"u{draw.randrange(4)}")
        chosen = draw.random()
        if chosen < 0.3:
            yield Sent(other, first.day, row)
        elif chosen < 0.5:
            yield Sent(other, first.day, changed)
        else:
            yield Sent(first.source, draw.randint(first.day, 5), changed)


def files_of(draw: random.Random, sent: list[Sent], *, parts: int, name: str) -> list[File]:
    """Other files of the same rows: split, in another order, some lines twice, in one spelling or another."""
    groups: dict[tuple[str, int, int], list[Sent]] = defaultdict(list)
    for one in sent:
        for _ in range(draw.choice([1, 1, 1, 2])):
            groups[one.source, one.day, draw.randrange(parts)].append(one)
    files = []
    for (source, day, part), rows in sorted(groups.items()):
        draw.shuffle(rows)
        lines = [HEADER, *(one.row.line(draw.randrange(2)) for one in rows)]
        files.append(File(f"{source}/{name}-{day}-{part}.csv", day, "\n".join(lines) + "\n", tuple(rows)))
    return files


def one_place() -> list[File]:
    """A file that is replaced by another content, and then by the first again."""
    rows = [Row("s1", "u1", "i1", "purchase", FIRST, "1"), Row("s2", "u2", "i1", "purchase", FIRST, "1")]
    other = [replace(rows[0], pieces="9"), replace(rows[1], item="i2", at=FIRST + timedelta(days=1))]
    files = []
    for day, content in ((2, rows), (3, other), (4, rows)):
        text = "\n".join([HEADER, *(row.line() for row in content)]) + "\n"
        files.append(File("web/stock.csv", day, text, tuple(Sent("web", day, row) for row in content)))
    return files


class World:
    """A lake beside its two landing folders, and what of them was taken."""

    def __init__(self, spark: SparkSession, root: Path, *, large_batch_rows: int) -> None:
        self.root, self.spark = root, spark
        self.settings = demo_in(
            root,
            lake={"large_batch_rows": large_batch_rows},
            quality={"max_rejected_share": 1.0, "max_unknown_item_share": 1.0},
            sources={name: events_in(root / name, columns=COLUMNS) for name in ("tills", "web")},
        )
        self.texts: dict[str, str] = {}

    def job(self, day: date) -> Job:
        return Job(self.spark, self.settings, day)

    def night(self, files: list[File], take: Take) -> None:
        """Take the files in; every line of a new content is good, quarantined or a duplicate."""
        taken = []
        for file in files:
            is_back = self.texts.get(file.place, file.text) != file.text
            if is_back or file.text not in self.texts.values():
                taken.append(file)
            self.texts[file.place] = file.text
        figures = take(self, files, taken)
        rows = [one for file in taken for one in file.rows]
        good = [one for one in rows if one.is_good]
        expected = {
            "rows_in": len(rows),
            "rows_good": len({one.row.key for one in good}),
            "rows_quarantined": len(rows) - len(good),
            "rows_duplicate": len(good) - len({one.row.key for one in good}),
        }
        assert {metric: figures[metric, "interactions"] for metric in expected} == expected

    def silver(self) -> list[tuple]:
        return sorted(map(tuple, self.job(RUN_DATES[0]).read(SILVER_INTERACTIONS).collect()), key=repr)

    def preferences(self, day: date) -> dict[tuple[str, str], tuple]:
        rows = preferences_on(self.job(day), day).collect()
        return {
            (row["user_id"], row["item_id"]): (row["strength"], row["events"], row["last_event_at"])
            for row in rows
        }


def standing(silver: list[tuple], sent: list[Sent]) -> list[Event]:
    """The events that silver holds, each of them one of the latest deliveries of its event.

    Of different contents of one moment a hash decides, which is left to silver; of equal ones the source.
    """
    latest: dict[str, list[Sent]] = defaultdict(list)
    for one in filter(lambda one: one.is_good, sent):
        known = latest[one.row.key]
        if not known or one.day >= known[0].day:
            latest[one.row.key] = [*(other for other in known if other.day == one.day), one]
    names = list(SILVER_INTERACTIONS.columns)
    events = []
    for values in silver:
        row = dict(zip(names, values, strict=True))
        said = (row["user_id"], row["item_id"], row["event_type"], row["event_at"].replace(tzinfo=UTC))
        said += (f"{row['quantity']:.0f}", row["cancels_event_id"] or "")
        candidates = latest.pop(row["event_id"])
        assert row["delivered_at"].replace(tzinfo=UTC) == moment(candidates[0].day)
        assert row["event_date"] == row["event_at"].date()
        assert row["source"] == max(one.source for one in candidates if astuple(one.row)[1:] == said)
        other = {"at": said[3], "quantity": row["quantity"], "cancels": row["cancels_event_id"]}
        events.append(Event(row["event_id"], *said[:3], **other))
    assert not latest
    return events


def strengths(events: list[Event], day: date, settings: Settings) -> dict[tuple[str, str], tuple]:
    knobs = settings.preferences
    left = oracle(events, day, burst_seconds=0, rated="")
    total, count, last = Counter(), Counter(), {}
    for event in (event for event in events if event.id in left):
        pair, age = (event.user, event.item), (day - event.at.date()).days
        total[pair] += knobs.event_weights[event.kind] * 0.5 ** (age / knobs.half_life_days)
        count[pair] += 1
        last[pair] = max(event.at.replace(tzinfo=None), last.get(pair, datetime.min))
    return {pair: (pytest.approx(total[pair]), count[pair], last[pair]) for pair in total}


def by_stages(world: World, files: list[File], _: list[File]) -> Figures:
    """Files on a disk, with the times of their deliveries, through `ingest` and `clean`."""
    for file in files:
        path = world.root / file.place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        os.utime(path, (moment(file.day).timestamp(),) * 2)
    job = world.job(max(moment(file.day).date() for file in files))
    ingest.run(job)
    return clean.run(job).figures


def by_batches(world: World, _: list[File], taken: list[File]) -> Figures:
    """The same rows as bronze holds them, judged and merged as `clean` does: for a test that may not take long."""
    rows = [
        {
            **{ours: fields.get(theirs) or None for ours, theirs in COLUMNS.items()},
            "source": one.source,
            "content_hash": file.place,
            "delivered_at": moment(file.day),
            "row": place,
        }
        for file in taken
        for place, (one, line) in enumerate(zip(file.rows, file.text.splitlines()[1:], strict=True))
        for fields in [dict(zip(HEADER.split(","), line.split(","), strict=True))]
    ]
    job = world.job(RUN_DATES[0])
    judged = batch.judged_batch(job, "interactions", bronze(world.spark, rows), [])
    judged.merge(job)
    judged.close()
    return judged.counts


def two_lakes(
    spark: SparkSession, root: Path, *, seed: int, nights: int, take: Take
) -> tuple[World, World, list[Sent]]:
    """All in one night, and other files of the same rows in some nights in random order; and the rows.

    The one takes every batch as a small one, the other as a large one, written before it is judged as a whole.
    """
    draw = random.Random(seed)
    sent, stock = made_up(draw), one_place()[-nights:]
    whole = World(spark, root / "whole", large_batch_rows=1_000_000)
    pieces = World(spark, root / "pieces", large_batch_rows=1)
    whole.night([*files_of(draw, sent, parts=1, name="a"), stock[-1]], take)
    files = files_of(draw, sent, parts=2, name="b")
    draw.shuffle(files)
    for number, content in enumerate(stock):
        pieces.night([*files[number::nights], content], take)
    return whole, pieces, [*sent, *stock[-1].rows]


def test_any_order_and_splitting_of_deliveries_ends_in_the_same_silver_and_preferences(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_TWINS", 2.0)
    whole, pieces, sent = two_lakes(spark, tmp_path, seed=6, nights=2, take=by_batches)
    silver = whole.silver()
    assert pieces.silver() == silver
    day = RUN_DATES[0]
    assert pieces.preferences(day) == strengths(standing(silver, sent), day, pieces.settings)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_same_from_files_on_a_disk_by_the_stages_of_the_night(
    spark: SparkSession, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MOST_TWINS", 2.0)
    whole, pieces, sent = two_lakes(spark, tmp_path, seed=seed, nights=3, take=by_stages)
    silver = whole.silver()
    assert pieces.silver() == silver
    events = standing(silver, sent)
    for day in RUN_DATES:
        expected = strengths(events, day, whole.settings)
        assert whole.preferences(day) == expected
        assert pieces.preferences(day) == expected
    for world in (whole, pieces):
        waiting = world.job(RUN_DATES[0]).read(SILVER_QUARANTINE).collect()
        assert {tuple(row["reject_reasons"]) for row in waiting} == {("missing_user_id",), ("future_time",)}
