"""Whatever the order, splitting and repetition of deliveries: the same silver and the same preferences.

Two shops' systems, which both count from 1, deliver events that are corrected, late, repeated, returned and
cancelled; a third has the first one's events. Catalogues and lists of users say all there is, or a part. One lake
takes all in one night; another takes other files of the same rows, in several nights and in random order. Both must
hold what plain Python says: of every event and every item the delivery that stands, and what is there on a day.
"""

from __future__ import annotations

import hashlib
import os
import random
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from functools import reduce
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys_spark.config.sections import Settings
from recsys_spark.data.cleaning import batch
from recsys_spark.data.cleaning.finished import DONE
from recsys_spark.data.reading import preferences_on
from recsys_spark.data.snapshots import versions_on
from recsys_spark.data.validity import current_on
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import BRONZE, OPS_METRICS, SILVER_INTERACTIONS, SILVER_QUARANTINE
from recsys_spark.runtime.rows import frame_of
from recsys_spark.stages import clean, ingest
from tests.data.deliveries import KEYS, events_in
from tests.data.test_events import Event, oracle
from tests.settings import a_source, demo_in
from tests.tables import bronze

FIRST = datetime(2024, 5, 1, tzinfo=UTC)
RUN_DATES = [date(2024, 5, 3), date(2024, 5, 6)]
HEADER = "id,user,item,what,at,pieces,undoes"
COLUMNS = KEYS | {"event_type": "what", "quantity": "pieces", "cancels_event_id": "undoes"}

# When of a day a source delivers, and whose events it has where they are not its own.
HOURS = {"tills": 12, "copy": 13, "web": 14, "goods": 8, "extra": 9, "people": 8}
OWNER = {"copy": "tills"}

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
    """A row as a source delivered it on a day (from 1)."""

    source: str
    day: int
    row: Row

    @property
    def is_good(self) -> bool:
        return bool(self.row.user.strip("\t")) and self.row.at <= self.at + timedelta(days=1)

    @property
    def at(self) -> datetime:
        return moment(self.day, self.source)

    @property
    def key(self) -> tuple[str, str]:
        return OWNER.get(self.source, self.source), self.row.key


@dataclass(frozen=True)
class File:
    place: str
    day: int
    text: str
    rows: tuple[Sent, ...]

    @property
    def source(self) -> str:
        return self.place.split("/", maxsplit=1)[0]

    @property
    def at(self) -> datetime:
        return moment(self.day, self.source)


def moment(day: int, source: str) -> datetime:
    return FIRST + timedelta(days=day - 1, hours=HOURS[source])


def made_up(draw: random.Random) -> list[Sent]:
    """Events of five days, delivered on their day or later, then corrected; ids of both sources are the same."""
    sent = []
    for n in range(60):
        at = FIRST + timedelta(days=draw.randrange(5), seconds=draw.randrange(43200))
        row = Row(f"e{n // 2:02d}", f"u{draw.randrange(4)}", f"i{draw.randrange(3)}", "purchase", at)
        row = replace(row, what=draw.choice(["purchase", "purchase", "view"]), pieces=draw.choice("123"))
        if n % 6 == 0:
            row = replace(row, pieces=draw.choice(["-1", "-2"]), what="purchase")
        elif n % 7 == 0:
            row = replace(row, undoes=f"e{draw.randrange(30):02d}")
        elif n % 8 == 1:
            row = replace(row, id="")
        day = (at - FIRST).days + 1
        first = Sent("tills" if n % 2 else "web", draw.choice([day, day, 5]), row)
        sent += [first, *corrections(draw, first)]
    poison = [Row("p1", "\t", "i1", "view", FIRST), Row("p2", "u1", "i1", "view", FIRST + timedelta(days=9))]
    return [*sent, *(Sent("web", 2, row) for row in poison)]


def corrections(draw: random.Random, first: Sent) -> Iterable[Sent]:
    """Up to two of one event: later, in one delivery with it, or by the copy on that day, changed or not."""
    row, other = first.row, "copy" if first.source == "tills" else "web"
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
    """Other files of the same rows: split, in another order, some lines twice, in one spelling or another.

    Rows of one event stay in one file of a day, and in their order there, which says what stands.
    """
    groups: dict[tuple[str, int, int], list[Sent]] = defaultdict(list)
    for one in sent:
        part = zlib.crc32(f"{one.key}".encode()) % parts
        groups[one.source, one.day, part] += [one] * draw.choice([1, 1, 1, 2])
    files = []
    for (source, day, part), ordered in sorted(groups.items()):
        waiting: dict[tuple[str, str], deque[Sent]] = defaultdict(deque)
        for one in ordered:
            waiting[one.key].append(one)
        rows = [waiting[one.key].popleft() for one in draw.sample(ordered, len(ordered))]
        lines = [HEADER, *(one.row.line(draw.randrange(2)) for one in rows)]
        files.append(File(f"{source}/{name}-{day}-{part}.csv", day, "\n".join(lines) + "\n", tuple(rows)))
    return files


def one_place() -> list[File]:
    """A file that is replaced by another content, and then by the first again."""
    rows = [Row("s1", "u1", "i1", "purchase", FIRST, "1"), Row("s2", "u2", "i1", "purchase", FIRST, "1")]
    other = [replace(rows[0], pieces="9"), replace(rows[1], item="i2", at=FIRST + timedelta(days=1))]
    found = []
    for day, content in ((2, rows), (3, other), (4, rows)):
        text = "\n".join([HEADER, *(row.line() for row in content)]) + "\n"
        found.append(File("web/stock.csv", day, text, tuple(Sent("web", day, row) for row in content)))
    return found


class World:
    """A lake beside its landing folders, and what of them was taken."""

    def __init__(
        self, spark: SparkSession, root: Path, *, large_batch_rows: int, with_lists: bool = False
    ) -> None:
        self.root, self.spark = root, spark
        shops = {"tills": {}, "web": {}, "copy": {"same_events_as": "tills"}}
        sources = {name: events_in(root / name, columns=COLUMNS, **more) for name, more in shops.items()}
        for name, kind, columns, more in LISTS if with_lists else ():
            place = {"format": "csv", "path": f"{root / name}"}
            sources[name] = a_source(kind=kind, columns=columns, **place, **more)
        self.settings = demo_in(
            root,
            lake={"large_batch_rows": large_batch_rows},
            quality={"max_rejected_share": 1.0, "max_unknown_item_share": 1.0},
            sources=sources,
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
            "rows_good": len({one.key for one in good}),
            "rows_quarantined": len(rows) - len(good),
            "rows_duplicate": len(good) - len({one.key for one in good}),
        }
        assert {metric: figures[metric, "interactions"] for metric in expected} == expected

    def silver(self) -> list[tuple]:
        """All but the row's number in its file, which is another in other files."""
        rows = self.job(RUN_DATES[0]).read(SILVER_INTERACTIONS).drop("row").collect()
        return sorted(map(tuple, rows), key=repr)

    def preferences(self, day: date) -> dict[tuple[str, str], tuple]:
        rows = preferences_on(self.job(day), day).collect()
        return {
            (row["user_id"], row["item_id"]): (row["strength"], row["events"], row["last_event_at"])
            for row in rows
        }


def standing(silver: list[tuple], sent: list[Sent]) -> list[Event]:
    """The events that plain Python says stand, which are those that silver holds.

    Of an event's deliveries the latest; in one delivery its latest event, then the latest row.
    """
    latest: dict[tuple[str, str], tuple] = {}
    for place, one in enumerate(sent):
        if one.is_good:
            version = (one.at, one.row.at, place, one.row)
            latest[one.key] = max(version, latest.get(one.key, version), key=lambda found: found[:3])
    names = [name for name in SILVER_INTERACTIONS.columns if name != "row"]
    found = set()
    for values in silver:
        row = dict(zip(names, values, strict=True))
        at, delivered = (row[name].replace(tzinfo=UTC) for name in ("event_at", "delivered_at"))
        assert row["event_date"] == at.date()
        told = (
            row["user_id"],
            row["item_id"],
            row["event_type"],
            at,
            row["quantity"],
            row["cancels_event_id"],
        )
        found.add((row["source"], row["event_id"], delivered, *told))
    expected, events = set(), []
    for (source, key), (delivered, at, _, row) in latest.items():
        what = (row.user, row.item, row.what, at, float(row.pieces), row.undoes or None)
        expected.add((source, key, delivered, *what))
        named = f"{row.undoes}\0{source}" if row.undoes else None
        told = {"at": at, "quantity": float(row.pieces), "cancels": named}
        events.append(Event(f"{key}\0{source}", row.user, row.item, row.what, **told))
    assert found == expected
    assert len(silver) == len(found)
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
        os.utime(path, (file.at.timestamp(),) * 2)
    job = world.job(max(file.at.date() for file in files))
    ingest.run(job)
    return clean.run(job).figures


def by_batches(world: World, _: list[File], taken: list[File]) -> Figures:
    """The same rows as bronze holds them, judged and merged as `clean` does: for a test that may not take long."""
    rows = [
        {
            **{ours: fields.get(theirs) or None for ours, theirs in COLUMNS.items()},
            "source": one.source,
            "content_hash": file.place,
            "delivered_at": file.at,
            "row": place,
        }
        for file in taken
        for place, (one, line) in enumerate(zip(file.rows, file.text.splitlines()[1:], strict=True))
        for fields in [dict(zip(HEADER.split(","), line.split(","), strict=True))]
    ]
    job = world.job(RUN_DATES[0])
    found = batch.judged_batch(job, "interactions", bronze(world.spark, rows), [])
    found.merge(job)
    found.close()
    return found.counts


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
    begun = {file.source: file for file in files}  # of each source one, for a folder may not be empty
    rest = [file for file in files if file not in begun.values()]
    for number, content in enumerate(stock):
        pieces.night([*(begun.values() if not number else ()), *rest[number::nights], content], take)
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


LISTS = (
    ("goods", "items", {"item_id": "id", "title": "value"}, {"snapshot": True}),
    ("extra", "items", {"item_id": "id", "title": "value"}, {}),
    ("people", "users", {"user_id": "id", "is_consented": "value"}, {"snapshot": True}),
)
IDS = [f"x{n}" for n in range(10)]
DAYS = (0, 2, 4, 5)  # before the first and between others


@dataclass(frozen=True)
class Listing:
    """A file of items with titles, or of users with their consent."""

    source: str
    day: int
    number: int
    place: str
    rows: tuple[tuple[str, str], ...]

    @property
    def at(self) -> datetime:
        return moment(self.day, self.source) + timedelta(hours=4 * self.number)

    @property
    def content(self) -> str:
        return f"{self.place} {self.day} {self.number}"


def listings(draw: random.Random) -> list[Listing]:
    """On some days one file or two, under a name of its own or the usual one; ids are left out, or told twice."""
    found = []
    for source, kind, *_ in LISTS:
        for day in draw.sample(range(1, 6), 4):
            for number in range(draw.choice([1, 2])):
                ids = draw.sample(IDS[:5], 4) if source == "extra" else draw.sample(IDS, draw.randrange(5, 9))
                values = [
                    draw.choice(["true", "false"]) if kind == "users" else f"{source} {day} {number} {place}"
                    for place in range(len(ids) + 4)
                ]
                rows = tuple(zip(draw.sample([*ids, *ids[:4]], len(values)), values, strict=True))
                name = draw.choice(["all", "all", f"part-{day}-{number}"])
                found.append(Listing(source, day, number, f"{source}/{name}.csv", rows))
    return found


def there(files: list[Listing], kind: str, day: int) -> set[tuple[str, str]]:
    """(id, value) of what holds on the day."""
    whole = {name: bool(more) for name, of, _, more in LISTS if of == kind}
    theirs = [file for file in files if file.source in whole]
    stands: dict[str, tuple] = {}
    for file in theirs:
        for place, (name, value) in enumerate(file.rows):
            row = (file.at, kind == "users" and value == "false", place, file.source, value)
            stands[name] = max(row, stands.get(name, row))
    present = {}
    for source in (name for name, is_whole in whole.items() if is_whole):
        days = sorted({file.day for file in theirs if file.source == source})
        holds = max((one for one in days if one <= day), default=days[0])
        newest: dict[str, Listing] = {}
        for file in sorted(theirs, key=lambda file: file.at):
            if (file.source, file.day) == (source, holds):
                newest[file.place] = file
        present[source] = {name for file in newest.values() for name, _ in file.rows}
    return {
        (name, value) for name, (*_, source, value) in stands.items() if name in present.get(source, {name})
    }


def take_lists(world: World, kind: str, files: list[Listing]) -> None:
    """The rows of some files into bronze and silver, and the files marked, as `ingest` and `clean` do it."""
    job = world.job(RUN_DATES[0])
    columns = LISTS[0][2] if kind == "items" else LISTS[2][2]
    rows = [
        {
            **dict(zip(columns, values, strict=True)),
            "source": file.source,
            "source_file": file.place,
            "content_hash": file.content,
            "delivered_at": file.at,
            "row": number,
        }
        for file in files
        for number, values in enumerate(file.rows)
    ]
    job.append(BRONZE[kind], bronze(world.spark, rows, BRONZE[kind]))
    found = batch.judged_batch(job, kind, bronze(world.spark, rows, BRONZE[kind]), [])
    found.merge(job)
    found.close()
    marks = [
        ("r", FIRST.date(), "clean", DONE, f"{kind}:{one.source}:{one.content}", 1.0, FIRST) for one in files
    ]
    job.append(OPS_METRICS, frame_of(world.spark, marks, OPS_METRICS.schema))


def test_full_deliveries_in_any_order_leave_what_was_there_on_each_day(
    spark: SparkSession, tmp_path: Path
) -> None:
    draw = random.Random(9)
    files = listings(draw)
    whole, pieces = (
        World(spark, tmp_path / name, large_batch_rows=1_000_000, with_lists=True)
        for name in ("whole", "pieces")
    )
    shuffled = draw.sample(files, len(files))
    for world, nights in ((whole, [files]), (pieces, [shuffled[::2], shuffled[1::2]])):
        for night in nights:
            for kind in ("items", "users"):
                theirs = {name for name, of, *_ in LISTS if of == kind}
                take_lists(world, kind, [file for file in night if file.source in theirs])
    expected, gone = {}, set()
    for kind, of in (("items", LISTS[0]), ("users", LISTS[2])):
        name, value = of[2]
        for day in DAYS:
            expected[kind, day] = there(files, kind, day)
            gone |= {(kind, one) for one in IDS} - {(kind, one) for one, _ in expected[kind, day]}
        for world in (whole, pieces):
            lake, found = world.job(RUN_DATES[0]).lake, defaultdict(set)
            rows = [
                current_on(versions_on(lake, world.settings, kind, on), on, name).select(
                    F.lit(day), name, F.col(value).cast("string")
                )
                for day in DAYS
                for on in [FIRST.date() + timedelta(days=day - 1)]
            ]
            for day, *pair in reduce(DataFrame.unionAll, rows).collect():
                found[kind, day].add(tuple(pair))
            assert found == {key: pairs for key, pairs in expected.items() if key[0] == kind}
    assert {kind for kind, _ in gone} == {"items", "users"}


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
