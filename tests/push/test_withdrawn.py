"""What a rerun no longer would make is gone: its mail, its line of the export, its state in the outbox."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.errors import ConfigError
from recsys_spark.lake.job import Job
from recsys_spark.lake.tables import GOLD_OUTBOX
from recsys_spark.stages import deliver
from tests.push.small_lake import (
    DAY,
    EVER,
    exported,
    mail,
    mailed,
    make_visible,
    outbox_of,
    replace_people,
    small_job,
    told,
    user,
)

CAMPAIGNS = {"again": mail("email"), "fresh": mail("email"), "app": mail("push")}
SPRING, VERSION = datetime(2024, 5, 1, 12), date(2024, 5, 10)


@dataclass
class Person:
    """A user as the oracle knows them: consent since a day, and when they left which channel."""

    consents: bool = True
    since: date = EVER
    left: dict[str, datetime] = field(default_factory=dict)

    def may_get(self, channel: str) -> bool:
        has_left = channel in self.left and self.left[channel].date() >= self.since
        return self.consents and not has_left


def spelt(draw: random.Random, text: str) -> str:
    cased = draw.choice((text, text.upper(), text.title()))
    return draw.choice(("", " ", "\t", "\u00a0")) + cased + draw.choice(("", "  ", "\n", "\ufeff"))


def channel_spelt(draw: random.Random, channel: str) -> str:
    names = {"email": ("email", "E-Mail", "e_mail", " EMAIL ", "e mail"), "push": ("push", "Push", "PUSH\t")}
    return draw.choice(names[channel])


def store(job: Job, people: Mapping[str, Person], draw: random.Random) -> None:
    outcomes = [
        {
            **told(spelt(draw, name), "unsubscribe", at, channel_spelt(draw, channel)),
            "event_id": f"{name}{channel}",
        }
        for name, person in people.items()
        for channel, at in person.left.items()
    ]
    users = [user(name, since=person.since, consents=person.consents) for name, person in people.items()]
    replace_people(job, users, [*outcomes, told("a stranger", "unsubscribe", SPRING)])


def change(people: Mapping[str, Person], draw: random.Random) -> None:
    """Each may withdraw their consent, leave a channel, or come back by a version that began later."""
    for person in people.values():
        match draw.randrange(6):
            case 0:
                person.consents = False
            case 1 | 2:
                person.left[draw.choice(("email", "push"))] = draw.choice((SPRING, datetime(2024, 6, 2, 23)))
            case 3:
                person.consents, person.since = True, VERSION


def wanted(job: Job, people: Mapping[str, Person]) -> set[tuple[str, str]]:
    campaigns = job.settings.campaigns.items()
    return {
        (name, user_id)
        for name, campaign in campaigns
        for user_id, person in people.items()
        if person.may_get(campaign.channel)
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_who_said_no_has_a_mail_a_line_or_a_row_rendered_after_a_rerun(
    spark: SparkSession, tmp_path: Path, seed: int
) -> None:
    """Whether the lists were made again or not, by plain Python, through withdrawals and returns."""
    draw = random.Random(seed)
    people = {f"user {number:02d}": Person(consents=draw.random() < 0.8) for number in range(40)}
    job = small_job(spark, tmp_path, CAMPAIGNS)
    store(job, people, draw)
    make_visible(job)
    deliver.run(job)
    made = ever = wanted(job, people)
    assert made
    assert outbox_of(job, "rendered") == mailed(job) == exported(job) == made
    for number, is_made_again in enumerate((False, True, True)):
        before, could = made, wanted(job, people)
        change(people, draw)
        store(job, people, draw)
        if is_made_again:
            make_visible(job, run_id=f"r{number}")
            made = wanted(job, people)
        else:
            made = wanted(job, people) & could  # lists that were made as not to be sent stay so
        summary = deliver.run(job)
        assert outbox_of(job, "rendered") == mailed(job) == exported(job) == made
        ever |= made
        assert outbox_of(job, "withdrawn") == ever - made
        assert before - made
        assert f"{len(before - made):,} of an earlier run withdrawn" in summary.notes


def test_what_a_change_of_settings_or_a_killed_run_left_is_withdrawn_too(
    spark: SparkSession, tmp_path: Path
) -> None:
    job = small_job(spark, tmp_path, CAMPAIGNS)
    people = {"a": Person(), "b": Person(), "c": Person(consents=False)}
    store(job, people, random.Random(0))
    make_visible(job)
    deliver.run(job)
    mails = job.output / str(DAY) / "mails"
    (mails / "again" / "killed.html").write_text("written before its row was")
    kept = {name: CAMPAIGNS[name] for name in ("again",)} | {"fresh": mail("letter")}
    settings = job.settings.model_copy(update={"campaigns": kept})
    fewer = replace(job, settings=settings)
    assert any("conf/demo.toml has no campaign" in note for note in deliver.run(fewer).notes)
    assert outbox_of(job, "rendered") == mailed(job) == exported(job) == {("again", "a"), ("again", "b")}
    assert {path.name for path in (mails.parent / "exports").iterdir()} == {
        "email-again.jsonl",
        "letter-fresh.jsonl",
    }
    sending = settings.sending.model_copy(update={"max_mails": 1})
    fewer = replace(job, settings=settings.model_copy(update={"sending": sending}))
    deliver.run(fewer)
    assert mailed(job) == {("again", "a")}
    assert outbox_of(job, "rendered") == exported(job) == {("again", "a"), ("again", "b")}
    files = {
        row["user_id"]: row["file"] for row in job.read(GOLD_OUTBOX).where("campaign = 'again'").collect()
    }
    assert files == {"a": f"{DAY}/mails/again/a.html", "b": ""}
    before = {path: path.read_bytes() for path in mails.parent.rglob("*") if path.is_file()}
    unknown = replace(job, settings=settings.model_copy(update={"campaigns": {"other": mail()}}))
    with pytest.raises(ConfigError, match="none of its lists is of a campaign that conf/demo.toml names"):
        deliver.run(unknown)
    assert {path: path.read_bytes() for path in mails.parent.rglob("*") if path.is_file()} == before
    store(job, {name: Person(consents=False) for name in people}, random.Random(0))
    deliver.run(fewer)
    assert outbox_of(job, "rendered") == mailed(job) == exported(job) == set()
