"""Published lists to channels: a JSON Lines export and rendered mails, written on the driver.

A rerun withdraws what it would no longer make: mails, lines of exports, and their rows of the outbox.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from recsys_spark.data.validity import known_on
from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.runs import env_of, require_own_gold
from recsys_spark.lake.tables import GOLD_OUTBOX, GOLD_RECOMMENDATIONS, SILVER_ITEMS
from recsys_spark.models.versions import preferences_of
from recsys_spark.push.audience import people_on, sendable
from recsys_spark.push.export import export_lines
from recsys_spark.push.files import WITHDRAWN, export_path, write_campaign
from recsys_spark.runtime.broadcasts import broadcast_if_small
from recsys_spark.runtime.checkpoints import checkpointed

_OUTBOX_BATCH = 100_000  # rows of the outbox that the driver holds at once
_LIST = ("channel", "campaign", "user_id")


def run(job: Job) -> Summary:
    require_own_gold(job.lake, job.settings.env, doing=f"nothing was delivered for {job.run_date}")
    lists = job.read(GOLD_RECOMMENDATIONS).where(F.col("run_date") == F.lit(job.run_date))
    first, may_be_sent = F.col("rank") == 1, F.col("is_sendable")
    of_lists = (first, first & ~may_be_sent, first & ~_is_configured(job))
    counted = lists.agg(F.count(F.lit(1)), *map(F.count_if, of_lists), F.max("run_id")).collect()[0]
    rows, made, withheld, unknown, run_id = counted
    if not rows:
        raise ConfigError(f"nothing is published for {job.run_date}. Next: recsys run --from publish")
    _require_own_lists(job, run_id, is_known=unknown < made)
    lists = lists.where(may_be_sent & _is_configured(job))
    revoked = checkpointed(_revoked(job, lists.where(first)))
    if since := revoked.count():
        # Under columns of their own: Spark cannot tell them from those of the lists that they are made of.
        others = revoked.select(*[F.col(name).alias(name) for name in _LIST])
        lists = lists.join(broadcast_if_small(others, since), on=list(_LIST), how="left_anti")
    withdrawn = _withdraw(job, lists.where(first).select(*_LIST), run_id)
    sent = _deliver(job, lists)
    notes = [f"{sum(sent.values()):,} lists to {job.output / str(job.run_date)}"]
    for count, what in (
        (withheld, "withheld without consent"),
        (since, "withheld: their users said no after the lists were made"),
        (unknown, f"left out: conf/{job.settings.env}.toml has no campaign of their name and channel"),
        (withdrawn, "of an earlier run withdrawn"),
    ):
        if count:
            notes.append(f"{count:,} {what}")
    figures = {("mails", campaign): float(count) for campaign, count in sent.items()}
    figures["withdrawn", ""] = float(withdrawn)
    return Summary(rows, sum(sent.values()), f"exports, mails, {GOLD_OUTBOX.name}", figures, tuple(notes))


def _require_own_lists(job: Job, run_id: str, *, is_known: bool) -> None:
    """Raise ConfigError where the date's lists were made by another environment, before gold had an owner, or
    for no campaign that the settings know by name and channel."""
    made_by = env_of(job.lake, run_id)
    if made_by not in {None, job.settings.env}:
        raise ConfigError(
            f"nothing was delivered for {job.run_date}: its lists in {job.lake.root} are of environment "
            f"{made_by!r} (run {run_id}), and this is {job.settings.env!r}. "
            f"Next: recsys run --env {job.settings.env} --run-date {job.run_date} --from recommend"
        )
    if not is_known:
        raise ConfigError(
            f"nothing was delivered for {job.run_date}: none of its lists is of a campaign that "
            f"conf/{job.settings.env}.toml names, on that campaign's channel. Expected one of "
            f"{', '.join(sorted(job.settings.campaigns))}. "
            f"Next: recsys run --env {job.settings.env} --run-date {job.run_date} --from recommend"
        )


def _is_configured(job: Job) -> Column:
    """Whether the list is of a campaign of the settings, on its channel."""
    named = [
        (F.col("campaign") == name) & (F.col("channel") == campaign.channel)
        for name, campaign in job.settings.campaigns.items()
    ]
    return reduce(Column.__or__, named, F.lit(False))


def _revoked(job: Job, firsts: DataFrame) -> DataFrame:
    """(channel, campaign, user_id) of lists that were made sendable, and may not be sent by what silver says
    now; firsts: the first slots of sendable lists."""
    people = people_on(job.lake, job.run_date, settings=job.settings, preferences=preferences_of(job))
    revoked = []
    for name, campaign in job.settings.campaigns.items():
        users = firsts.where(F.col("campaign") == name).select("user_id")
        refused = sendable(users, campaign, people).where(~F.col("is_sendable"))
        of_campaign = (F.lit(campaign.channel).alias("channel"), F.lit(name).alias("campaign"))
        revoked.append(refused.select(*of_campaign, "user_id"))
    return reduce(DataFrame.unionByName, revoked, firsts.select(*_LIST).limit(0))


def _withdraw(job: Job, staying: DataFrame, run_id: str) -> int:
    """Take back what an earlier run made for lists that are not among those staying; how many there are.

    Files go first: where this is cut off, the outbox still names them and a rerun comes here again. With the
    mails goes the whole export that has their lines, since nobody knows whether this run will get to write
    it anew.

    staying: (channel, campaign, user_id) of the lists that this run delivers, unique.
    run_id: that made them, and withdraws the others.
    """
    outbox = job.read(GOLD_OUTBOX).where(F.col("run_date") == F.lit(job.run_date))
    made = outbox.where(F.col("state") != WITHDRAWN)
    if made.isEmpty():
        return 0
    gone = checkpointed(made.join(staying, on=list(_LIST), how="left_anti").select(*GOLD_OUTBOX.columns))
    count = gone.count()
    if not count:
        return 0
    for row in gone.where("file <> ''").select("file").toLocalIterator():
        (job.output / row["file"]).unlink(missing_ok=True)
    for row in gone.select("channel", "campaign").distinct().collect():
        export_path(job.output, job.run_date, row["channel"], row["campaign"]).unlink(missing_ok=True)
    state = {"state": F.lit(WITHDRAWN), "file": F.lit(""), "run_id": F.lit(run_id)}
    job.merge(GOLD_OUTBOX, gone.withColumns(state), newer="true", touched=f"t.run_date = '{job.run_date}'")
    return count


def _deliver(job: Job, lists: DataFrame) -> dict[str, int]:
    items = known_on(job.read(SILVER_ITEMS), job.run_date, "item_id")
    slots = lists.join(items.select("item_id", "title", "category", "brand"), on="item_id", how="left")
    # All at once: an iterator alone would have one partition after the other rendered.
    rendered = checkpointed(export_lines(slots), StorageLevel.DISK_ONLY)
    sent = dict.fromkeys(job.settings.campaigns, 0)
    # A merge reads all that the date has in the outbox; the first run of a date has nothing to meet.
    is_first = job.read(GOLD_OUTBOX).where(F.col("run_date") == F.lit(job.run_date)).isEmpty()
    outbox: list[tuple[Any, ...]] = []
    for name, of_campaign in _by_campaign(job, rendered.toLocalIterator()):
        campaign = job.settings.campaigns[name]
        for entry in write_campaign(
            job.output, job.run_date, name, campaign, of_campaign, sending=job.settings.sending
        ):
            outbox.append(entry)
            sent[name] += 1
            if len(outbox) == _OUTBOX_BATCH:
                _keep(job, outbox, is_first=is_first)
                outbox = []
    _keep(job, outbox, is_first=is_first)
    return sent


def _by_campaign(job: Job, rendered: Iterator[Row]) -> Iterator[tuple[str, Iterator[Row]]]:
    """Each campaign of the settings once with its chunks; those without a list last, so that their files of
    an earlier run are written anew as well."""
    left = dict.fromkeys(job.settings.campaigns)
    for name, of_campaign in groupby(rendered, key=itemgetter("campaign")):
        left.pop(name)
        yield name, of_campaign
    for name in left:
        yield name, iter(())


def _keep(job: Job, outbox: list[tuple[Any, ...]], *, is_first: bool) -> None:
    if not outbox:
        return
    columns = [pa.array(values) for values in zip(*outbox, strict=True)]
    rows = job.spark.createDataFrame(pa.table(columns, names=list(GOLD_OUTBOX.columns))).coalesce(1)
    if is_first:
        job.append(GOLD_OUTBOX, rows)
    else:
        compared = ("run_id", "content_hash", "state", "file")
        newer = " OR ".join(f"s.{name} <> t.{name}" for name in compared)
        job.merge(GOLD_OUTBOX, rows, newer=newer, touched=f"t.run_date = '{job.run_date}'")
