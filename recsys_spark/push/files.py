"""Files of a campaign: its export, whole or not at all, and a mail for each of its first users."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyspark.sql import Row

from recsys_spark.config.sections import Campaign, Sending
from recsys_spark.push.render import Mail, MailSlot, render_mail

# The states of gold.outbox.
RENDERED, WITHDRAWN = "rendered", "withdrawn"
_LONGEST_NAME = 100


def write_campaign(
    output: Path, run_date: date, name: str, campaign: Campaign, chunks: Iterator[Row], *, sending: Sending
) -> Iterator[tuple[Any, ...]]:
    """Write the campaign's export (whole or not at all) and mails; yields one outbox row a user.

    What an earlier run left in the campaign's folder of mails is deleted in the end.

    output: the folder in which each date has one.
    name: of the campaign.
    campaign: its settings.
    chunks: rows of `export_lines`.
    sending: which formats, and how many mails.
    """
    mails = output / str(run_date) / "mails" / _file_name(name)
    mails.mkdir(parents=True, exist_ok=True)
    export = export_path(output, run_date, campaign.channel, name)
    export.parent.mkdir(parents=True, exist_ok=True)
    partial = export.with_suffix(".partial")
    formats, written = sending.formats, set[str]()
    nothing = hashlib.sha256(b"").hexdigest()
    with partial.open("w", encoding="utf-8", newline="\n") as export_file:
        for chunk in chunks:
            if "jsonl" in formats:
                export_file.write(chunk["lines"])
            wanted = sending.max_mails - len(written) if "html" in formats else 0
            lines = chunk["lines"].split("\n", wanted)[:wanted] if wanted > 0 else []
            for place, user_id in enumerate(chunk["user_ids"]):
                file, digest = "", nothing
                if place < len(lines):
                    content = _mail(run_date, name, campaign, json.loads(lines[place])).encode()
                    path = mails / f"{_file_name(user_id)}.html"
                    path.write_bytes(content)
                    file, digest = str(path.relative_to(output)), hashlib.sha256(content).hexdigest()
                    written.add(path.name)
                run_id = chunk["run_id"]
                yield (run_date, campaign.channel, name, user_id, run_id, RENDERED, file, digest)
    partial.rename(export)
    for path in mails.iterdir():
        if path.name not in written:
            path.unlink()


def export_path(output: Path, run_date: date, channel: str, campaign: str) -> Path:
    """Where the export of the date's lists of a campaign is."""
    folder = output / str(run_date) / "exports"
    return folder / f"{_file_name(channel)}-{_file_name(campaign)}.jsonl"


def _mail(run_date: date, name: str, campaign: Campaign, exported: dict[str, Any]) -> str:
    return render_mail(
        Mail(
            user_id=exported["user_id"],
            run_date=run_date,
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


def _file_name(text: str) -> str:
    """Any id as one path segment; long ones end in a hash, so that two ids never share a file."""
    quoted = quote(text, safe="").replace(".", "%2E")
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"{quoted[:_LONGEST_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
