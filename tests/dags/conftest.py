"""Airflow of its own for these tests: a home under the temporary folder, SQLite, no examples."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "airflow_dags"
GOLDEN = ROOT / "tests" / "golden" / "dags"

# The project's own environment has no Airflow; its pytest passes by.
collect_ignore_glob = [] if find_spec("airflow") else ["test_*.py"]

AIRFLOW = {
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW_CONN_SPARK_DEFAULT": '{"conn_type": "spark", "host": "spark://master:7077"}',
}


def airflow_environment(home: Path, **settings: str) -> dict[str, str]:
    """Environment of an Airflow process whose home is `home`; RECSYS_* only as given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "RECSYS_"))}
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db"}
    return {**kept, **AIRFLOW, "AIRFLOW_HOME": str(home), **database, **settings}


# Airflow reads its home when it is imported, and the DAGs read theirs when they are parsed: both must
# be in place before the first test module is.
if find_spec("airflow"):
    _home = Path(tempfile.mkdtemp(prefix="recsys-airflow-"))
    for _name in [name for name in os.environ if name.startswith(("AIRFLOW", "RECSYS_"))]:
        del os.environ[_name]
    os.environ.update(airflow_environment(_home, RECSYS_HOME="/opt/recsys", RECSYS_ENV="prod"))


@pytest.fixture(scope="session")
def nightly() -> DAG:
    return import_module("nightly").dag


@pytest.fixture(scope="session")
def delivery() -> DAG:
    return import_module("delivery").dag


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")
