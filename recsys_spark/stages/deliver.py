"""Published lists to channels: a JSON Lines export and rendered mails, made on the driver."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import quote

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.config import Campaign
from recsys_spark.data.validity import known_on
from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job, Summary
from recsys_spark.lake.tables import GOLD_OUTBOX, GOLD_RECOMMENDATIONS, SILVER_ITEMS
from recsys_spark.push.export import jsonl_line
from recsys_spark.push.render import Mail, MailSlot, render_mail

_OUTBOX_BATCH = 5000
_LONGEST_NAME = 100


def run(job: Job) -> Summary:
    lists = job.read(GOLD_RECOMMENDATIONS).where(F.col("run_date") == F.lit(job.run_date)).persist()
    try:
        if lists.isEmpty():
            raise ConfigError(f"nothing is published for {job.run_date}. Next: recsys run --from publish")
        rows = lists.count()
        withheld = lists.where(~F.col("is_sendable")).select("campaign", "user_id").distinct().count()
        sent = _deliver(job, lists.where("is_sendable"))
    finally:
        lists.unpersist()
    notes = [f"{sum(sent.values()):,} lists to {job.output / str(job.run_date)}"]
    if withheld:
        notes.append(f"{withheld:,} withheld without consent")
    figures = {("mails", campaign): float(count) for campaign, count in sent.items()}
    return Summary(rows, sum(sent.values()), f"exports, mails, {GOLD_OUTBOX.name}", figures, tuple(notes))


def _deliver(job: Job, lists: DataFrame) -> dict[str, int]:
    items = known_on(job.read(SILVER_ITEMS), job.run_date, "item_id")
    items = items.select("item_id", "title", "category", "brand")
    ordered = lists.join(items, on="item_id", how="left").orderBy("campaign", "user_id", "rank")
    sent = dict.fromkeys(job.settings.campaigns, 0)
    outbox: list[tuple[Any, ...]] = []
    rows = (row.asDict() for row in ordered.toLocalIterator())
    for name, of_campaign in groupby(rows, key=itemgetter("campaign")):
        if name not in job.settings.campaigns:
            continue
        for entry in _campaign(job, name, job.settings.campaigns[name], of_campaign):
            outbox.append(entry)
            sent[name] += 1
            if len(outbox) == _OUTBOX_BATCH:
                _keep(job, outbox)
                outbox = []
    _keep(job, outbox)
    return sent


def _campaign(
    job: Job, name: str, campaign: Campaign, rows: Iterator[dict[str, Any]]
) -> Iterator[tuple[Any, ...]]:
    """Write the campaign's export (whole or not at all) and mails; yields one outbox row a user."""
    folder = job.output / str(job.run_date)
    mails = folder / "mails" / _file_name(name)
    mails.mkdir(parents=True, exist_ok=True)
    export = folder / "exports" / f"{_file_name(campaign.channel)}-{_file_name(name)}.jsonl"
    export.parent.mkdir(parents=True, exist_ok=True)
    partial = export.with_suffix(".partial")
    formats = job.settings.delivery.formats
    with partial.open("w", encoding="utf-8", newline="\n") as lines:
        for count, (user_id, slots_of_user) in enumerate(groupby(rows, key=itemgetter("user_id"))):
            slots = list(slots_of_user)
            if "jsonl" in formats:
                lines.write(jsonl_line(_exported(slots)))
            file, content = "", b""
            if "html" in formats and count < job.settings.delivery.max_mails:
                content = _mail(job, name, campaign, slots).encode()
                path = mails / f"{_file_name(user_id)}.html"
                path.write_bytes(content)
                file = str(path.relative_to(job.output))
            digest = hashlib.sha256(content).hexdigest()
            run_id = slots[0]["run_id"]
            yield (job.run_date, campaign.channel, name, user_id, run_id, "rendered", file, digest)
    partial.rename(export)


def _exported(slots: list[dict[str, Any]]) -> dict[str, object]:
    """One user's list for a machine: who, which campaign, and the slots in order."""
    first = slots[0]
    shared = ("run_date", "channel", "campaign", "user_id", "arm", "model_version", "run_id")
    own = ("rank", "item_id", "title", "category", "brand", "score", "source", "reason", "propensity")
    return {
        **{name: first[name] for name in shared},
        "items": [{name: slot[name] for name in own} for slot in slots],
    }


def _mail(job: Job, name: str, campaign: Campaign, slots: list[dict[str, Any]]) -> str:
    return render_mail(
        Mail(
            user_id=slots[0]["user_id"],
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
                for slot in slots
            ],
            unsubscribe_url=campaign.unsubscribe_url,
            subject=campaign.subject or None,
        )
    ).html


def _keep(job: Job, outbox: list[tuple[Any, ...]]) -> None:
    if outbox:
        rows = job.spark.createDataFrame(outbox, GOLD_OUTBOX.schema).coalesce(1)
        newer = "s.run_id <> t.run_id OR s.content_hash <> t.content_hash"
        job.merge(GOLD_OUTBOX, rows, newer=newer, touched=f"t.run_date = '{job.run_date}'")


def _file_name(text: str) -> str:
    """Any id as one path segment; long ones end in a hash, so that two ids never share a file."""
    quoted = quote(text, safe="").replace(".", "%2E")
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"{quoted[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
