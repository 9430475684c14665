"""Bad input: one clear sentence, the documented exit code, and nothing of it in silver or gold."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.errors import ConfigError
from recsys_spark.night import guarded, holding, parse_date, run_night, stages_between
from tests.conftest import ROOT
from tests.shop import SOURCES, write_conf

EVENTS = "id,user,item,at,pieces\ne1,u1,i1,2024-05-01 10:00:00,1\ne2,u2,i2,2024-05-02 10:00:00,1\n"


@pytest.fixture
def stage_run(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`run(extra, run_date, last)`: the first stages on a tiny shop whose files a test may spoil; the exit code."""
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "events.csv").write_text(EVENTS, encoding="utf-8")
    items = [{"sku": f"i{n}", "name": "green tea", "kind": "tea", "maker": "m"} for n in (1, 2)]
    (shop / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")

    def run(
        extra: str = "",
        *,
        run_date: str = "2024-05-03",
        last: str = "clean",
        sources: Sequence[str] = ("events", "items"),
    ) -> int:
        places = {"base": ROOT / "conf", "shop": shop, "root": tmp_path}
        conf = write_conf(tmp_path / "conf", **places, extra=extra, sources=sources)
        monkeypatch.setenv("RECSYS_CONF", str(conf))

        def action() -> None:
            run_night(
                load_settings("slice"),
                date.fromisoformat(run_date),
                stages_between("ingest", last),
                spark=spark,
            )

        return guarded(action)

    return run


def written(tmp_path: Path) -> set[str]:
    """Tables with data, by layer and name."""
    return {f"{log.parent.parent.name}/{log.parent.name}" for log in (tmp_path / "lake").rglob("_delta_log")}


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What is told on standard error, which holds no stack trace of Python or Java."""
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "\tat " not in printed
    return printed


def test_a_missing_path(stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop" / "events.csv").unlink()
    assert stage_run() == 2
    assert "source 'events': nothing at" in sentence(capsys)
    assert written(tmp_path) == set()


def test_a_missing_column(stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop" / "users.csv").write_text("usr,group,consent\nu1,g,true\n", encoding="utf-8")
    assert stage_run(sources=["events", "items", "users"]) == 2
    assert "column 'user' (for user_id) not found. Did you mean usr?" in sentence(capsys)
    assert written(tmp_path) == set()


def test_a_file_without_rows(stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop" / "events.csv").write_text("id,user,item,at,pieces\n", encoding="utf-8")
    assert stage_run() == 3
    assert "holds no rows" in sentence(capsys)
    assert written(tmp_path) == set()


def test_a_truncated_file(stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop" / "cut.parquet").write_bytes(b"PAR1\x00\x00 cut off here")
    extra = '\n[sources.cut]\nkind = "interactions"\nformat = "parquet"\npath = "{}"\n'
    extra += 'columns = {{ user_id = "u", item_id = "i", event_at = "a", event_type = "t" }}\n'
    assert stage_run(extra.format(tmp_path / "shop" / "cut.parquet")) == 3
    assert "cut.parquet as parquet" in sentence(capsys)
    assert written(tmp_path) == set()


def test_what_clean_refuses_never_reaches_silver(
    stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A date before any event, one long after the last, and a delivery that fails the gate."""
    (tmp_path / "shop" / "events.csv").write_text(EVENTS + "e3,u1,i1,soon,1\n" * 2, encoding="utf-8")
    assert stage_run(run_date="2020-01-01") == 3
    assert "no events on or before 2020-01-01: the first known event is of 2024-05-01" in sentence(capsys)
    assert stage_run("\n[quality]\nmax_age_days = 2\n", run_date="2024-06-01") == 3
    stale = sentence(capsys)
    assert "no data for 2024-06-01: the newest known event is of 2024-05-02" in stale
    assert "expect_column_max_to_be_between(newest_age_days) observed 30, allowed <= 2" in stale
    assert written(tmp_path) >= {"bronze/interactions", "ops/quality_results"}
    pages = (tmp_path / "output" / "2024-06-01" / "data_docs" / "clean").rglob("*.html")
    assert any("newest_age_days" in page.read_text(encoding="utf-8") for page in pages)
    users = "user,group,consent\nu1,g,true\n,g,true\n"
    (tmp_path / "shop" / "users.csv").write_text(users, encoding="utf-8")
    assert stage_run(sources=["events", "items", "users"]) == 3
    refused = sentence(capsys)
    for suite in ("silver.interactions.profile", "silver.users"):
        seen = "expect_column_max_to_be_between(rejected_share) observed 0.5, allowed <= 0.05"
        assert f"{suite}: {seen}" in refused
    assert not {table for table in written(tmp_path) if table.startswith(("silver", "gold"))}


def test_a_lake_that_cannot_be_written(
    stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lake").write_text("a file where the lake should be")
    assert stage_run() == 2
    assert "the lake cannot be written" in sentence(capsys)


def test_a_stage_before_its_predecessor(
    spark: SparkSession, stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage_run(last="ingest") == 0
    settings = load_settings("slice")
    assert (
        guarded(
            lambda: run_night(
                settings, date(2024, 5, 4), stages_between("preferences", "deliver"), spark=spark
            )
        )
        == 2
    )  # type: ignore[arg-type,return-value]
    assert "no run is open for 2024-05-04" in sentence(capsys)


def test_a_stage_that_is_skipped_is_left_out() -> None:
    assert list(stages_between("recommend", "deliver", skip=["evaluate"])) == [
        "recommend",
        "publish",
        "deliver",
    ]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda: parse_date("03.12.2017"), "--run-date '03.12.2017' is not a date. Expected YYYY-MM-DD."),
        (lambda: stages_between("publsh", "deliver"), "Did you mean publish?"),
        (lambda: stages_between("ingest", "deliver", skip=["evalute"]), "Did you mean evaluate?"),
        (lambda: stages_between("publish", "ingest"), "--from publish comes after --to ingest."),
    ],
)
def test_wrong_words_on_the_command_line(
    action: Callable[[], None], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(action) == 2
    assert expected in sentence(capsys)


WRONG = {
    "YYYY-MM-dd": 'time_format = "YYYY-MM-dd"',
    "time_format 'no letters' has no year": 'time_format = "no letters"',
    "content.features names 'weihgt'": '[content]\nfeatures = ["weihgt"]',
    "features.log1p names 'prise'": '[features]\nlog1p = ["prise"]',
}


@pytest.mark.parametrize("told", WRONG)
def test_a_setting_that_a_later_stage_would_refuse_is_told_before_anything_is_written(
    stage_run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], told: str
) -> None:
    days = SOURCES["events"].replace("[sources.events]", "[sources.days]").format(shop=tmp_path / "shop")
    assert stage_run(days + WRONG[told]) == 2
    assert told in sentence(capsys)
    assert written(tmp_path) == set()


@pytest.mark.parametrize("place", ["lake", "output"])
def test_a_place_that_cannot_be_written_is_told_before_anything_is(tmp_path: Path, place: str) -> None:
    """Below a file nobody may make a folder, not even root."""
    (tmp_path / "file").write_text("")
    settings = load_settings("demo")
    places = {"lake": str(tmp_path / "lake"), "output": str(tmp_path / "output")}
    places[place] = str(tmp_path / "file" / "here")
    sections = {name: getattr(settings, name).model_copy(update={"path": at}) for name, at in places.items()}
    with (
        pytest.raises(ConfigError, match=rf"^the {place} cannot be written: {places[place]} \(Not a dir"),
        holding(settings.model_copy(update=sections), "a test"),
    ):
        pass
