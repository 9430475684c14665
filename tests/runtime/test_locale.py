"""Names of files are UTF-8 to Python, Java and the workers, in whatever locale a night is started."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from recsys_spark.config.load import load_settings
from recsys_spark.night import run_night, stages_between
from tests.conftest import ROOT
from tests.shop import write_conf

DAY = "2024-05-03"
# The second spells its ü in two characters, as macOS does. All lie in one folder, whose name is a column.
FILES = ("bestellungen-größe-😀.csv", "Zu\u0308rich.csv", "plain.csv")
SHOP, LAKE, FOLDER = "Geschäft", "Lädchen", "laden=Köln 😀"
SOURCES = """
[sources.events]
kind = "interactions"
format = "csv"
path = "{shop}"
constants = {{ event_type = "purchase" }}
columns = {{ event_id = "id", user_id = "user", item_id = "item", event_at = "at", basket_id = "laden" }}

[quality]
max_unknown_item_share = 1.0
"""


def environment(**locale: str) -> dict[str, str]:
    """This process's, with no word of a locale but these."""
    words = ("LC_", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(words)}
    return {**kept, **locale}


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, {"LC_ALL": "xx_XX.UTF-8"}, {}]
)
def test_java_that_a_night_starts_takes_names_for_utf8(locale: dict[str, str]) -> None:
    code = (
        "import subprocess\nfrom recsys_spark.runtime.session import speak_utf8\nspeak_utf8()\n"
        "told = ['java', '-XX:TieredStopAtLevel=1', '-XshowSettings:properties', '-version']\n"
        "print(subprocess.run(told, capture_output=True, text=True).stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**locale), capture_output=True, text=True, check=True
    )
    assert "sun.jnu.encoding = UTF-8" in done.stdout


def test_stages_are_submitted_in_a_locale_of_utf8(tmp_path: Path) -> None:
    """Their Java is there before ours is asked."""
    submit = tmp_path / "submit"
    submit.write_text('#!/bin/sh\necho "$LC_ALL $PYTHONUTF8"\n')
    submit.chmod(0o755)
    places = {"RECSYS_SPARK_BINARY": str(submit), "RECSYS_LOGS": str(tmp_path / "logs")}

    def told(**given: str) -> str:
        command = ["bash", str(ROOT / "scripts" / "submit_night.sh"), "demo", DAY, "ingest"]
        done = subprocess.run(
            command,
            env=environment(LC_ALL="C", **places, **given),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()[0]

    assert told() == "C.UTF-8 1"
    assert told(RECSYS_LOCALE="de_DE.UTF-8") == "de_DE.UTF-8 1"


def small_shop(folder: Path, root: Path) -> Path:
    """The conf folder of a shop of three files, one event in each."""
    shop = folder / SHOP
    inner = shop / FOLDER
    inner.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(FILES):
        text = f"id,user,item,at\ne{number},Jürgen,Käse {number},2024-05-0{number + 1} 10:00:00\n"
        (inner / name).write_text(text, encoding="utf-8")
    extra = SOURCES.format(shop=shop)
    return write_conf(root / "conf", base=ROOT / "conf", shop=shop, root=root / LAKE, extra=extra, sources=())


def stored(root: Path) -> list[tuple[str, ...]]:
    """The events of silver, with the files that bronze has them from."""
    lake = root / LAKE / "lake"
    names = ("event_id", "user_id", "item_id", "basket_id")
    events = DeltaTable(str(lake / "silver" / "interactions")).to_pyarrow_table().to_pylist()
    bronze = DeltaTable(str(lake / "bronze" / "interactions")).to_pyarrow_table().to_pylist()
    files = {row["event_id"]: row["source_file"].rsplit("/", maxsplit=1)[-1] for row in bronze}
    return sorted((files[row["event_id"]], *(row[name] for name in names)) for row in events)


def test_a_night_without_a_locale_takes_every_file_and_makes_no_stray_folder(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, bare = tmp_path / "usual", tmp_path / "bare"
    conf = small_shop(tmp_path, bare)
    command = [sys.executable, "-c", "from recsys_spark.cli import main; main()"]
    done = subprocess.run(
        [*command, "run", "--env", "slice", "--run-date", DAY, "--to", "clean"],
        env=environment(LC_ALL="C", RECSYS_CONF=str(conf)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("RECSYS_CONF", str(small_shop(tmp_path, usual)))
    day = date.fromisoformat(DAY)
    run_night(load_settings("slice"), day, stages_between("ingest", "clean"), spark=spark)
    expected = sorted(
        (name, f"e{number}", "Jürgen", f"Käse {number}", "Köln 😀") for number, name in enumerate(FILES)
    )
    assert stored(bare) == stored(usual) == expected
    for root in (bare, usual):
        assert sorted(path.name for path in root.iterdir()) == sorted(("conf", LAKE))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(("bare", "usual", SHOP))


@pytest.mark.spark
def test_a_job_whose_java_started_in_another_locale_is_refused(tmp_path: Path) -> None:
    """By hand, without the ways to start that we ship: nothing is read or written."""
    conf = small_shop(tmp_path, tmp_path)
    submit = Path(sys.executable).parent / "spark-submit"
    done = subprocess.run(
        [str(submit), "--properties-file", str(conf / "spark-local.conf"), str(ROOT / "jobs" / "ingest.py")]
        + ["--env", "slice", "--run-date", DAY],
        env=environment(LC_ALL="C", RECSYS_CONF=str(conf), PYSPARK_PYTHON=sys.executable),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    # spark-submit gives what Python says on standard error on its standard output.
    said = (done.stdout + done.stderr).splitlines()
    [told] = [line for line in said if line.startswith("recsys: ")]
    assert "names of files are ANSI_X3.4-1968 to Java and utf-8 to Python" in told
    assert "Next: export LC_ALL=C.UTF-8 PYTHONUTF8=1" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((SHOP, LAKE, "conf"))
    assert not list(tmp_path.rglob("_delta_log"))
