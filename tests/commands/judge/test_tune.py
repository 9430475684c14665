"""What a search writes: TOML that the environment's file takes, and nothing that is as it was."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.commands.judge.search_lines import overlay, summary
from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Settings
from recsys_spark.evaluation.metrics.significance import Interval
from recsys_spark.evaluation.tuning.judge import Window
from recsys_spark.evaluation.tuning.search import Outcome, Study, Tried
from recsys_spark.evaluation.tuning.space import configured, space_of, with_parameters
from recsys_spark.lake.job import Job
from tests.conftest import ROOT


def outcome_of(settings: Settings, low: float, **better: float) -> Outcome:
    """Three trials of which the last one is the best, or the first where nothing is better."""
    job = Job(None, settings, date(2024, 6, 2))  # type: ignore[arg-type] - nothing is read
    space = space_of(settings)
    study = Study(job, Window.of(job.run_date, days=28), space, "tune-20240602-0123456789")
    own = configured(settings, space)
    present = Tried(0, 7, own, 0.04, {"repeats_allowed": 0.04}, 50, 1.0)
    failed = Tried(1, 8, own, None, {}, 0, 1.0, "InputError: no")
    best = Tried(2, 9, {**own, **better}, 0.05, {"repeats_allowed": 0.05}, 50, 1.0) if better else present
    gain = Interval(0.008, low, 0.012)
    tried = (present, failed, best) if better else (present, failed)
    return Outcome(study, tried, present, best, 0.041, 0.049, {"objective": gain}, 49)


def test_the_overlay_merged_into_the_environment_is_the_best_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.toml").write_text((ROOT / "conf" / "base.toml").read_text("utf-8"), "utf-8")
    (tmp_path / "mine.toml").write_text("[bots]\nmin_items = 7\n\n", "utf-8")
    monkeypatch.setenv("RECSYS_CONF", str(tmp_path))
    settings = load_settings("mine")
    better = {"als.rank": 31, "als.alpha": 0.00123, "preferences.half_life_days": 200.0}
    text = overlay(outcome_of(settings, 0.004, **better))
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == [
        "[als]",
        "alpha = 0.00123  # as configured 2.0",
        "rank = 31  # as configured 64",
        "[preferences]",
        "half_life_days = 200.0  # as configured 90.0",
    ]
    assert "2024-04-08 to 2024-05-05, models of 2024-04-07" in text
    assert "trial 2 of 3" in text
    assert "0.0490, as configured 0.0410, on others: +0.0080 [+0.0040, +0.0120] (95 %)" in text
    with (tmp_path / "mine.toml").open("a", encoding="utf-8") as file:
        file.write(text)
    assert load_settings("mine") == with_parameters(settings, better)


@pytest.mark.parametrize(
    ("low", "better", "sentence"),
    [
        (0.004, {"als.rank": 31}, "1 failed"),
        (-0.001, {"als.rank": 31}, "The gain is not proven"),
        (0.0, {}, "the present configuration stands"),
    ],
)
def test_people_are_told_what_the_search_proves(low: float, better: dict, sentence: str) -> None:
    lines = "\n".join(summary(outcome_of(load_settings("demo"), low, **better)))
    assert sentence in lines
    assert ("not proven" in lines) == (low < 0)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[als]\nrank = 3\n")
    done = CliRunner().invoke(
        app, ["tune", "--env", "demo", "--run-date", "2024-06-02", "--write", str(mine)]
    )
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert mine.read_text() == "[als]\nrank = 3\n"


@pytest.mark.parametrize("option", ["--write", "--json"])
def test_a_folder_that_is_missing_is_told_before_hours_of_work(tmp_path: Path, option: str) -> None:
    path = tmp_path / "nowhere" / "found"
    done = CliRunner().invoke(app, ["tune", "--env", "demo", "--run-date", "2024-06-02", option, str(path)])
    assert done.exit_code == 2
    assert f"there is no folder {path.parent}" in done.stderr
