"""A search on a made-up shop: everyone has an old staple, and two in three a recent fancy.

In the validation window all come back for the old staple, which only a long half-life ranks first.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from recsys_spark.errors import InputError
from recsys_spark.evaluation.tuning.judge import Window, gains, objective
from recsys_spark.evaluation.tuning.search import Outcome, Tried, search
from recsys_spark.lake.job import Job
from recsys_spark.lake.runs import open_run
from recsys_spark.lake.tables import MODEL_TUNE_TRIALS, SILVER_INTERACTIONS, SILVER_ITEMS
from tests.settings import demo_in
from tests.tables import rows_for

START = date(2024, 1, 1)
CUTOFF, LAST, RUN_DATE = (START + timedelta(days=days) for days in (40, 50, 60))
USERS = 12
OLD, RECENT = "old staple", "recent fancy"
# With this seed the second trial asks for words of more items than any has, the third for a long half-life.
SEED, TRIALS = 5, 3
searching = pytest.mark.soak  # each trial trains all that a night trains


def event(name: str, user: int, item: str, day: int, **other: object) -> dict[str, object]:
    at = datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
    usual = {
        "event_id": f"{name} {user}",
        "user_id": f"u{user:02d}",
        "item_id": item,
        "event_type": "purchase",
        "event_at": at,
        "event_date": at.date(),
        "quantity": 1.0,
        "source": "made up",
        "delivered_at": at,
        "row_hash": user,
    }
    return usual | other


def is_fickle(user: int) -> bool:
    return user % 3 != 0


def shop() -> list[dict[str, object]]:
    bought = [event(f"old {day}", user, OLD, day) for user in range(USERS) for day in (2, 3, 4)]
    bought += [event("recent", user, RECENT, 39) for user in range(USERS) if is_fickle(user)]
    return bought + [event("again", user, OLD, 42) for user in range(USERS)]


def fancies(first_day: int) -> list[dict[str, object]]:
    """Ten days in which all come back for the recent fancy, twice, and take back or cancel the staple."""
    rows = []
    for user in range(USERS):
        rows += [event(f"{n} from {first_day}", user, RECENT, first_day + n) for n in (1, 2)]
        rows += [event(f"back {first_day}", user, OLD, first_day + 3, quantity=-1.0)]
        rows += [event(f"void {first_day}", user, OLD, first_day + 4, cancels_event_id=f"again {user}")]
    # One user in three turns into a robot, whom the rules would take out of all that is read.
    return rows + [
        event(f"robot {n} {first_day}", user, OLD, first_day + 5)
        for user in range(0, USERS, 3)
        for n in range(25)
    ]


def items(*later: tuple[str, date]) -> list[dict[str, object]]:
    """A catalogue of pairs of words, each in two items; `later` are items that begin on a day."""
    delivery = {"is_available": True, "delivered_at": datetime(2024, 1, 1, tzinfo=UTC), "row_hash": 1}
    held = [(OLD, START), (RECENT, START), *((f"shelf {n}", START) for n in range(6)), *later]
    return [
        delivery
        | {"item_id": name, "title": f"word{n // 2}", "valid_from": begins, "valid_to": date(9999, 12, 31)}
        for n, (name, begins) in enumerate(held)
    ]


def job_of(spark: SparkSession, root: Path, events: list[dict], catalogue: list[dict], **content: int) -> Job:
    settings = demo_in(
        root,
        als={"trainer": "cg", "rank": 2, "iterations": 1},
        content=content,
        bots={"max_events_per_day": 20},
        preferences={"half_life_days": 10.0},
        # The shop's arithmetic knows one half-life, and so do its draws.
        history={"overdue_half_life": 0.0},
        blend={"repeats_allowed": {"history": 1.0}, "new_items_only": {"content": 1.0}},
        evaluation={"window_days": 10, "bootstrap_samples": 200, "seed": SEED},
    )
    job = Job(spark, settings, RUN_DATE)
    open_run(job.lake, job.settings, RUN_DATE)
    for table, rows in ((SILVER_INTERACTIONS, events), (SILVER_ITEMS, catalogue)):
        job.append(table, rows_for(spark, table, *rows))
    return job


def ndcg_of(user: int, half_life: float) -> float:
    """1 where the old staple leads; second place is worth 1 / log2(3)."""
    old = sum(0.5 ** ((40 - day) / half_life) for day in (2, 3, 4))
    recent = 0.5 ** (1 / half_life) if is_fickle(user) else 0.0
    return 1.0 if old > recent else 1 / math.log2(3)


def mean_ndcg(users: range, half_life: float) -> float:
    return sum(ndcg_of(user, half_life) for user in users) / len(users)


def trials_of(job: Job) -> list[dict]:
    """The trials without what differs from search to search."""
    rows = job.read(MODEL_TUNE_TRIALS).drop("seconds", "recorded_at").orderBy("trial").collect()
    return [row.asDict() for row in rows]


def files_of(job: Job, folder: str) -> list[str]:
    return sorted(path.name for path in (Path(job.lake.root) / folder).iterdir())


@pytest.fixture(scope="module")
def announced() -> list[Tried]:
    return []


@pytest.fixture(scope="module")
def searched(
    spark: SparkSession, announced: list[Tried], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, Outcome]:
    job = job_of(spark, tmp_path_factory.mktemp("search"), shop(), items())
    return job, search(job, trials=TRIALS, seconds=None, tell=announced.append)


@searching
def test_every_trial_is_told_and_kept_with_its_value_also_the_one_that_failed(
    searched: tuple[Job, Outcome], announced: list[Tried]
) -> None:
    job, _ = searched
    rows = trials_of(job)
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"]
    half_lives = [json.loads(row["parameters"])["preferences.half_life_days"] for row in rows]
    assert half_lives[0] == job.settings.preferences.half_life_days
    chosen_by = range(0, USERS, 2)
    values = [mean_ndcg(chosen_by, days) for days in half_lives]
    assert values[0] < values[2] == 1.0
    assert [row["value"] for row in rows] == [pytest.approx(values[0]), None, pytest.approx(1.0)]
    assert rows[0]["ndcg"] == {"repeats_allowed": rows[0]["value"]}, "nobody bought anything new"
    assert "no word is shared by" in rows[1]["error"]
    assert {row["users"] for row in rows} == {6, 0}
    assert {(row["trained_to"], row["judged_from"], row["judged_to"]) for row in rows} == {
        (CUTOFF, CUTOFF + timedelta(days=1), LAST)
    }
    assert [(one.number, one.value, one.seed) for one in announced] == [
        (row["trial"], row["value"], row["seed"]) for row in rows
    ]


@searching
def test_the_best_is_judged_on_users_that_the_search_did_not_see(searched: tuple[Job, Outcome]) -> None:
    job, outcome = searched
    others = range(1, USERS, 2)
    assert (outcome.present.number, outcome.best.number) == (0, 2)
    assert outcome.before == pytest.approx(mean_ndcg(others, job.settings.preferences.half_life_days))
    assert outcome.after == 1.0
    assert outcome.gains["objective"].mean == pytest.approx(1.0 - outcome.before)
    assert outcome.gains["objective"] == outcome.gains["repeats_allowed"]
    assert outcome.is_proven


@searching
def test_trials_leave_no_models_behind(searched: tuple[Job, Outcome]) -> None:
    job, _ = searched
    assert files_of(job, "models") == ["tune_trials"]
    assert not [name for name in files_of(job, "_tune") if name.startswith("tune-")]


@searching
def test_a_study_is_taken_up_again_and_a_search_whose_time_is_over_tries_no_more(
    searched: tuple[Job, Outcome],
) -> None:
    job, outcome = searched
    tried: list[Tried] = []
    again = search(job, trials=99, seconds=0, tell=tried.append)
    assert tried == []
    # Trained anew to be judged on the other users, and equal to the last bit.
    assert replace(again, study=outcome.study) == outcome


@searching
def test_what_happens_after_the_validation_window_changes_no_trial_and_within_it_the_choice(
    searched: tuple[Job, Outcome], spark: SparkSession, tmp_path: Path
) -> None:
    job, outcome = searched
    later = [*fancies(51), *fancies(61)]
    renamed = items((OLD, LAST), (RECENT, LAST))
    planted = job_of(spark, tmp_path / "planted", shop() + later, renamed)
    search(planted, trials=TRIALS, seconds=None, tell=lambda _: None)
    assert trials_of(planted) == trials_of(job)

    within = job_of(spark, tmp_path / "within", shop() + fancies(41), items())
    other = search(within, trials=TRIALS, seconds=None, tell=lambda _: None)
    assert outcome.best.parameters != other.best.parameters == other.present.parameters
    assert other.study.name != outcome.study.name, "what is judged by other events is another study"


@searching
def test_a_search_ends_where_the_present_configuration_cannot_be_judged(
    spark: SparkSession, tmp_path: Path
) -> None:
    job = job_of(spark, tmp_path, shop(), items(), min_items=9)
    with pytest.raises(InputError, match="no word is shared by 9 items"):
        search(job, trials=TRIALS, seconds=None, tell=lambda _: None)
    assert [row["state"] for row in trials_of(job)] == ["failed"]


def test_the_window_ends_where_that_of_the_nights_backtest_begins() -> None:
    assert Window.of(date(2024, 6, 2), days=28) == Window(
        cutoff=date(2024, 4, 7), first=date(2024, 4, 8), last=date(2024, 5, 5)
    )


def test_users_count_in_the_gain_of_the_objective_as_in_the_objective() -> None:
    nan = np.nan
    before = np.array([[0.1, 0.2, 0.3, 0.4], [nan, 0.5, nan, 0.1]])
    after = np.array([[0.3, 0.2, 0.2, 0.6], [nan, 0.9, nan, 0.2]])
    gained = gains(before, after, samples=500, seed=3)
    assert gained["repeats_allowed"].mean == pytest.approx((0.2 + 0.0 - 0.1 + 0.2) / 4)
    assert gained["new_items_only"].mean == pytest.approx((0.4 + 0.1) / 2)
    assert gained["objective"].mean == pytest.approx(objective(after) - objective(before))
    assert objective(before) == pytest.approx((1.0 / 4 + 0.6 / 2) / 2)
