"""A night judged beside the baselines, by two splits."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.evaluation.judgement import Judgement
from recsys_spark.evaluation.nights import judge_by_last_one, judge_by_window
from recsys_spark.evaluation.report.gather import gather
from recsys_spark.evaluation.sentences import verdict
from recsys_spark.lake.tables import MODEL_METRICS, MODEL_POPULARITY, SILVER_INTERACTIONS
from recsys_spark.models.versions import last_one_version
from recsys_spark.names import COMPONENTS, TASKS
from tests.jobs.conftest import Night
from tests.shop import RUN_DATE, STRANGERS, UNASKED, USERS
from tests.tables import rows_of

# Two more trainings, and all baselines: tests/evaluation holds each of the parts to its oracle.
pytestmark = pytest.mark.soak

BASELINES = {
    "random",
    "popularity_ever",
    "popularity_recent",
    "frequency",
    "item_knn",
    "item_knn_cosine",
    "user_knn",
    "user_knn_cosine",
    "als_plus_tfidf",
    "svd",
    "item2vec",
}


@pytest.fixture(scope="module")
def judged(night: Night) -> Judgement:
    return judge_by_window(night.job, with_baselines=True)


def test_baselines_are_judged_on_the_same_users_as_the_hybrid(judged: Judgement) -> None:
    assert set(judged.baselines) - {"bpr"} == BASELINES
    for task in TASKS:
        models = {"hybrid", *COMPONENTS, *judged.baselines}
        assert set(judged.values[task]) == models
        assert set(judged.differences[task]) == models - {"hybrid"}
        ndcg = {model: values["ndcg@10"] for model, values in judged.values[task].items()}
        for model, lead in judged.differences[task].items():
            assert lead.mean == pytest.approx(ndcg["hybrid"] - ndcg[model])
            assert lead.low <= lead.mean <= lead.high
        assert ndcg["random"] < ndcg["item_knn"]
        assert ndcg["random"] < ndcg["user_knn"]
        # The same counts, ranked by Spark's workers and by the driver.
        assert judged.values[task]["popularity_recent"] == pytest.approx(judged.values[task]["popularity"])


def test_slices_by_history_add_up_to_the_whole(judged: Judgement) -> None:
    for task in TASKS:
        for kind in ("history", "segment"):
            slices = judged.sliced[task][kind].values()
            assert sum(users for users, _ in slices) == judged.users[task]
            for model, values in judged.values[task].items():
                whole = sum(users * models[model] for users, models in slices) / judged.users[task]
                assert whole == pytest.approx(values["ndcg@10"])
        assert set(judged.sliced[task]["segment"]) == {f"group {n}" for n in range(4)}
        for name, (best, lead) in judged.leads[task].items():
            _, models = judged.sliced[task]["history"][name]
            assert models[best] == max(models[component] for component in COMPONENTS)
            assert lead.mean == pytest.approx(models["hybrid"] - models[best])
            assert lead.low <= lead.mean <= lead.high


def test_baselines_are_stored_with_the_night_and_told_in_its_report(judged: Judgement, night: Night) -> None:
    stored = rows_of(night.job.lake, MODEL_METRICS)
    assert {row["model"] for row in stored} == set(judged.models())
    report = gather(night.job)
    assert report.verdicts == {task: verdict(judged.differences[task]) for task in TASKS}
    names = {row["metric"] for row in stored}
    assert names >= {"diversity@10", "serendipity@10", "ndcg@10|segment:group 1"}
    assert set(report.slices["repeats_allowed"]["segment"]) == {f"group {n}" for n in range(4)}


def test_leave_last_one_keeps_each_users_last_event_from_the_models(night: Night) -> None:
    judgement = judge_by_last_one(night.job)
    assert judgement.users["repeats_allowed"] == USERS + len(STRANGERS) + len(UNASKED)
    for values in judgement.values["repeats_allowed"].values():
        assert values["hit_rate@10"] == pytest.approx(values["recall@10"])  # one item each
    silver = rows_of(night.job.lake, SILVER_INTERACTIONS)
    events = [row for row in silver if str(row["event_date"]) <= RUN_DATE]
    last: dict[str, tuple] = {}
    for row in events:
        key = (row["event_at"], row["event_id"])
        last[row["user_id"]] = max(last.get(row["user_id"], key), key)
    recently = night.job.run_date - timedelta(days=night.job.settings.popularity.window_days)
    users = defaultdict(set)
    for row in events:
        if (row["event_at"], row["event_id"]) != last[row["user_id"]]:
            users[row["item_id"]] |= {row["user_id"]} if row["event_date"] > recently else set()
    counts = {
        row["item_id"]: row["users"]
        for row in rows_of(night.job.lake, MODEL_POPULARITY)
        if row["model_version"] == last_one_version(night.job)
    }
    assert counts == {item: len(had) for item, had in users.items()}


def test_the_command_prints_both_tables_and_what_is_left_out(
    judged: Judgement, night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "recsys_spark.commands.judge.evaluation_tables.nights.judge_by_window", lambda *_, **__: judged
    )
    done = CliRunner().invoke(app, ["evaluate", "--env", "slice", "--run-date", RUN_DATE, "--baselines"])
    assert done.exit_code == 0, done.output
    for text in (
        "item_knn",
        "als_plus_tfidf",
        "hybrid leads NDCG@10",
        "NDCG@10 by what users had before",
        "NDCG@10 by segment (4 of 4)",
        "serendipity@10",
        *[verdict(judged.differences[task]) for task in TASKS],
    ):
        assert text in done.stdout
    assert all(note in done.stdout for note in judged.notes)
