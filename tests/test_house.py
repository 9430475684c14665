"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from recsys_spark.night import STAGES
from tests.conftest import ROOT

PACKAGE = ROOT / "recsys_spark"
# Each room may import those before it; evaluation may read all but push.
ORDER = ["runtime", "lake", "data", "models", "ranking"]
MAY_READ = {
    **{room: {*ORDER[: place + 1]} for place, room in enumerate(ORDER)},
    "runtime": {"runtime", "lake"},
    "push": {*ORDER, "push"},
    "evaluation": {*ORDER, "evaluation"},
}


# What the splits that follow the move take away.
NOT_YET = {
    "evaluation/report/gather.py imports night",
    "data/quarantine/reprocess.py imports stages",
    "data/quarantine/discard.py imports stages",
}


def rooms_imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recsys_spark."):
            names.add(node.module.split(".")[1])
    return names


def test_imports_flow_one_way() -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {other}"
        for room, allowed in MAY_READ.items()
        for path in (PACKAGE / room).rglob("*.py")
        for other in rooms_imported(path) - allowed - {"errors", "config", "titles"}
    }
    assert wrong == NOT_YET


def test_every_module_can_be_imported_without_a_session() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    )
    code = (
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        "from pyspark.sql import SparkSession\nassert SparkSession.getActiveSession() is None\n"
        "from pyspark import SparkContext\nassert SparkContext._active_spark_context is None"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_stage_has_a_job_of_its_name() -> None:
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(STAGES)
    for stage in STAGES:
        assert f'main("{stage}")' in (ROOT / "jobs" / f"{stage}.py").read_text(encoding="utf-8")


def test_reassociated_sums_have_one_machine_code() -> None:
    """A helper that is called, not inlined, runs as compiled alone in the process that compiles its caller,
    and as compiled within its caller wherever that is loaded from numba's cache: other last bits."""
    wrong = set()
    for path in PACKAGE.rglob("*_loops.py"):
        functions = [
            node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)
        ]
        options = {
            node.name: {word.arg: ast.unparse(word.value) for word in node.decorator_list[0].keywords}
            for node in functions
            if node.decorator_list and isinstance(node.decorator_list[0], ast.Call)
        }
        assert options, path
        if any("fastmath" in found for found in options.values()):
            wrong |= {
                f"{path.name}: {name}"
                for name, found in options.items()
                if name.startswith("_") and (found.get("forceinline") != "True" or "cache" in found)
            }
    assert wrong == set()
