"""A night is the same whatever machine it runs on: zone, language, locale, home, and what may be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from recsys_spark.lake.tables import (
    GOLD_RECOMMENDATIONS,
    MODEL_CONTENT_TERMS,
    SILVER_INTERACTIONS,
    SILVER_PREFERENCES,
    SILVER_QUARANTINE,
    Table,
)
from tests.conftest import ROOT
from tests.shop import RUN_DATE, open_shop, write_conf

# Three nights, each in a process of its own.
pytestmark = pytest.mark.soak

NOBODY = 65534
COMPARED = (
    (SILVER_INTERACTIONS, ("source", "event_id", "user_id", "item_id", "event_at", "event_date")),
    (SILVER_QUARANTINE, ("source", "row", "reject_reasons", "raw")),
    (SILVER_PREFERENCES, ("user_id", "item_id", "strength", "last_event_at")),
    (MODEL_CONTENT_TERMS, ("model_version", "term")),
    (GOLD_RECOMMENDATIONS, ("run_id", "campaign", "user_id", "rank", "item_id", "score", "source", "reason")),
)
PLAIN = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
USUAL = {**PLAIN, "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8", "TZ": "Europe/Berlin"}
ENVIRONMENTS = {
    "elsewhere": {
        **USUAL,
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "C",
        "JAVA_TOOL_OPTIONS": "-Duser.language=tr -Duser.country=TR",
    },
    # No locale, no home, no database of zones; by a user who may write nothing but lake and output.
    "bare": {**PLAIN, "PYTHONTZPATH": "", "TZ": ":/nowhere"},
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One that every user may enter, as pytest's own may not be."""
    made = Path(tempfile.mkdtemp(prefix="recsys-environments-"))
    made.chmod(0o777)
    shop = open_shop(made / "shop").folder
    with (shop / "items.jsonl").open("a", encoding="utf-8") as lines:
        # In Turkish the lower case of I has no dot, and Java asks the machine's language outside of ASCII.
        for sku in ("t1", "t2"):
            row = {"sku": sku, "name": "CRÈME ICE ISLANDIA", "kind": "ICE", "maker": "İnci"}
            lines.write(json.dumps(row) + "\n")
    yield made
    shutil.rmtree(made)


def as_nobody() -> dict[str, Any]:
    """Options of a process that may not write the installation, where we may start one that can read it."""
    if os.geteuid() != 0:
        return {}
    options: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", "import recsys_spark"], env=PLAIN, check=False, cwd="/", **options
        )
    except PermissionError:
        return {}
    return options if tried.returncode == 0 else {}


def night(folder: Path, name: str, env: Mapping[str, str], **options: Any) -> dict[str, list[str]]:
    """The tables of a night in that environment, each as its sorted rows."""
    root = folder / name
    root.mkdir()
    root.chmod(0o777)
    conf = write_conf(root / "conf", base=ROOT / "conf", shop=folder / "shop", root=root)
    command = [sys.executable, "-c", "from recsys_spark.cli import app; app()"]
    command += ["run", "--env", "slice", "--run-date", RUN_DATE]
    done = subprocess.run(
        command,
        env={**env, "RECSYS_CONF": str(conf)},
        cwd="/",
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        **options,
    )
    assert done.returncode == 0, f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return {table.name: rows(root, table, columns) for table, columns in COMPARED}


def rows(root: Path, table: Table, columns: tuple[str, ...]) -> list[str]:
    read = DeltaTable(str(root / "lake" / table.path)).to_pyarrow_table(columns=list(columns)).to_pylist()
    return sorted(repr(row) for row in read)


@pytest.fixture(scope="module")
def usual(folder: Path) -> dict[str, list[str]]:
    return night(folder, "usual", USUAL)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_night_is_the_same_in_any_environment(folder: Path, usual: dict[str, list[str]], name: str) -> None:
    found = night(folder, name, ENVIRONMENTS[name], **(as_nobody() if name == "bare" else {}))
    assert all(usual.values()), "nothing is compared with nothing"
    assert any("ice" in term and "ı" not in term for term in usual[MODEL_CONTENT_TERMS.name])
    for table, expected in usual.items():
        assert found[table] == expected, table
