"""Exports and mails from chunks of lists, as the driver writes them."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from recsys_spark.config.sections import Sending
from recsys_spark.push.export import jsonl_line
from recsys_spark.push.files import write_campaign
from tests.settings import a_campaign, with_defaults

DAY = date(2024, 3, 1)
SLOT = {"rank": 1, "category": None, "brand": "b", "reason": "why"}
USERS = [["u0", "u1"], ["u2", "u/3", "u4"], ["u5"]]


def chunk(users: list[str]) -> Any:
    lines = [
        jsonl_line({"user_id": user, "items": [{**SLOT, "item_id": "i", "title": f"Tea {user[-1]} leaves"}]})
        for user in users
    ]
    return {"campaign": "c", "run_id": "r", "user_ids": users, "lines": "".join(lines)}


@pytest.mark.parametrize("max_mails", [0, 1, 3, 5, 6, 9])
def test_every_list_is_exported_and_the_first_ones_are_mailed(tmp_path: Path, max_mails: int) -> None:
    sending = with_defaults(Sending, max_mails=max_mails)
    campaign = a_campaign(channel="push", k=1, repeat_allowed=True, unsubscribe_url="https://example.org/out")
    chunks = iter([chunk(users) for users in USERS])
    outbox = list(write_campaign(tmp_path, DAY, "c", campaign, chunks, sending=sending))
    everyone = [user for users in USERS for user in users]
    assert [row[:6] for row in outbox] == [(DAY, "push", "c", user, "r", "rendered") for user in everyone]
    for place, row in enumerate(outbox):
        file, digest = row[6:]
        if place >= max_mails:
            assert (file, digest) == ("", hashlib.sha256(b"").hexdigest())
            continue
        content = (tmp_path / file).read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()
        assert [at for at in range(len(everyone)) if f"Tea {at} " in content.decode()] == [place]
    export = (tmp_path / str(DAY) / "exports" / "push-c.jsonl").read_text(encoding="utf-8")
    assert export == "".join(chunk(users)["lines"] for users in USERS)
    assert len(list((tmp_path / str(DAY) / "mails" / "c").iterdir())) == min(max_mails, len(everyone))
