"""Published lists to channels: a JSON Lines export and rendered mails, written on the driver."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recsys_spark.config.sections import Campaign
from recsys_spark.data.validity import known_on
from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import GOLD_OUTBOX, GOLD_RECOMMENDATIONS, SILVER_ITEMS
from recsys_spark.push.export import export_lines
from recsys_spark.push.render import Mail, MailSlot, render_mail
from recsys_spark.runtime.checkpoints import checkpointed

_OUTBOX_BATCH = 100_000  # rows of the outbox that the driver holds at once
_LONGEST_NAME = 100


def run(job: Job) -> Summary:
    lists = job.read(GOLD_RECOMMENDATIONS).where(F.col("run_date") == F.lit(job.run_date))
    first = F.col("rank") == 1
    rows, withheld = lists.agg(F.count(F.lit(1)), F.count_if(first & ~F.col("is_sendable"))).collect()[0]
    if not rows:
        raise ConfigError(f"nothing is published for {job.run_date}. Next: recsys run --from publish")
    sent = _deliver(job, lists.where("is_sendable"))
    notes = [f"{sum(sent.values()):,} lists to {job.output / str(job.run_date)}"]
    if withheld:
        notes.append(f"{withheld:,} withheld without consent")
    figures = {("mails", campaign): float(count) for campaign, count in sent.items()}
    return Summary(rows, sum(sent.values()), f"exports, mails, {GOLD_OUTBOX.name}", figures, tuple(notes))


def _deliver(job: Job, lists: DataFrame) -> dict[str, int]:
    items = known_on(job.read(SILVER_ITEMS), job.run_date, "item_id")
    slots = lists.join(items.select("item_id", "title", "category", "brand"), on="item_id", how="left")
    # All at once: an iterator alone would have one partition after the other rendered.
    rendered = checkpointed(export_lines(slots), StorageLevel.DISK_ONLY)
    sent = dict.fromkeys(job.settings.campaigns, 0)
    # A merge reads all that the date has in the outbox; the first run of a date has nothing to meet.
    is_first = job.read(GOLD_OUTBOX).where(F.col("run_date") == F.lit(job.run_date)).isEmpty()
    outbox: list[tuple[Any, ...]] = []
    for name, of_campaign in groupby(rendered.toLocalIterator(), key=itemgetter("campaign")):
        if name not in job.settings.campaigns:
            continue
        for entry in write_campaign(job, name, job.settings.campaigns[name], of_campaign):
            outbox.append(entry)
            sent[name] += 1
            if len(outbox) == _OUTBOX_BATCH:
                _keep(job, outbox, is_first=is_first)
                outbox = []
    _keep(job, outbox, is_first=is_first)
    return sent


def write_campaign(
    job: Job, name: str, campaign: Campaign, chunks: Iterator[Row]
) -> Iterator[tuple[Any, ...]]:
    """Write the campaign's export (whole or not at all) and mails; yields one outbox row a user.

    chunks: rows of `export_lines`.
    """
    folder = job.output / str(job.run_date)
    mails = folder / "mails" / _file_name(name)
    mails.mkdir(parents=True, exist_ok=True)
    export = folder / "exports" / f"{_file_name(campaign.channel)}-{_file_name(name)}.jsonl"
    export.parent.mkdir(parents=True, exist_ok=True)
    partial = export.with_suffix(".partial")
    formats, mailed = job.settings.sending.formats, 0
    nothing = hashlib.sha256(b"").hexdigest()
    with partial.open("w", encoding="utf-8", newline="\n") as export_file:
        for chunk in chunks:
            if "jsonl" in formats:
                export_file.write(chunk["lines"])
            wanted = job.settings.sending.max_mails - mailed if "html" in formats else 0
            lines = chunk["lines"].split("\n", wanted)[:wanted] if wanted > 0 else []
            for place, user_id in enumerate(chunk["user_ids"]):
                file, digest = "", nothing
                if place < len(lines):
                    content = _mail(job, name, campaign, json.loads(lines[place])).encode()
                    path = mails / f"{_file_name(user_id)}.html"
                    path.write_bytes(content)
                    file, digest = str(path.relative_to(job.output)), hashlib.sha256(content).hexdigest()
                    mailed += 1
                run_id = chunk["run_id"]
                yield (job.run_date, campaign.channel, name, user_id, run_id, "rendered", file, digest)
    partial.rename(export)


def _mail(job: Job, name: str, campaign: Campaign, exported: dict[str, Any]) -> str:
    return render_mail(
        Mail(
            user_id=exported["user_id"],
            run_date=job.run_date,
            campaign=name,
            channel=campaign.channel,
            brand_name=campaign.brand_name,
            intro="",
            slots=[
                MailSlot(
                    rank=slot["rank"],
                    item_id=slot["item_id"],
                    title=slot["title"] or slot["item_id"],
                    category=slot["category"] or "",
                    brand=slot["brand"] or "",
                    reason=slot["reason"],
                )
                for slot in exported["items"]
            ],
            unsubscribe_url=campaign.unsubscribe_url,
            subject=campaign.subject or None,
        )
    ).html


def _keep(job: Job, outbox: list[tuple[Any, ...]], *, is_first: bool) -> None:
    if not outbox:
        return
    columns = [pa.array(values) for values in zip(*outbox, strict=True)]
    rows = job.spark.createDataFrame(pa.table(columns, names=list(GOLD_OUTBOX.columns))).coalesce(1)
    if is_first:
        job.append(GOLD_OUTBOX, rows)
    else:
        newer = "s.run_id <> t.run_id OR s.content_hash <> t.content_hash"
        job.merge(GOLD_OUTBOX, rows, newer=newer, touched=f"t.run_date = '{job.run_date}'")


def _file_name(text: str) -> str:
    """Any id as one path segment; long ones end in a hash, so that two ids never share a file."""
    quoted = quote(text, safe="").replace(".", "%2E")
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"{quoted[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
