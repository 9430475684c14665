"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from recsys_spark.names import STAGES
from tests.conftest import ROOT

PACKAGE = ROOT / "recsys_spark"
# Each may import itself and those before it; evaluation reads all rooms up to ranking, and nobody but the top
# reads evaluation.
ORDER = [
    "errors",
    "names",
    "titles",
    "config",
    "runtime",
    "lake",
    "data",
    "models",
    "policy",
    "ranking",
    "push",
    "serving",
    "operations",
]
MAY_READ = {
    **{room: {*ORDER[: place + 1]} for place, room in enumerate(ORDER)},
    "evaluation": {*ORDER[: ORDER.index("push")], "evaluation"},
    "stages": {*ORDER, "evaluation", "stages"},
}
MODULES_AT_MOST = 15
# The modules below the stages with functions that take a whole job. The list may only shrink: functions get
# numbers, frames, or one section of the settings.
TAKE_A_JOB = {
    "data/cleaning/batch.py",
    "data/gates/judge.py",
    "data/quarantine/reprocess.py",
    "data/reading.py",
    "evaluation/backtest.py",
    "evaluation/cold_start.py",
    "evaluation/judgement.py",
    "evaluation/nights.py",
    "evaluation/report/gather.py",
    "evaluation/tuning/judge.py",
    "evaluation/tuning/search.py",
    "evaluation/weights/fit.py",
    "models/als/nights.py",
    "models/als/reuse.py",
    "models/versions.py",
    "ranking/rankable.py",
}


def modules(room: str) -> list[Path]:
    alone = PACKAGE / f"{room}.py"
    return [alone] if alone.exists() else sorted((PACKAGE / room).rglob("*.py"))


def rooms_imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recsys_spark."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "recsys_spark":
            names |= {alias.name for alias in node.names if alias.name != "__version__"}
    return names


def test_imports_flow_one_way() -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {other}"
        for room, allowed in MAY_READ.items()
        for path in modules(room)
        for other in rooms_imported(path) - allowed
    }
    assert wrong == set()


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert rooms - {*MAY_READ} == {"commands", "night", "cli"}


def test_no_folder_has_more_modules_than_one_can_survey() -> None:
    crowded = {}
    for folder in [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir())]:
        found = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        if len(found) > MODULES_AT_MOST:
            crowded[str(folder.relative_to(PACKAGE))] = len(found)
    assert crowded == {}


def takes_a_job(path: Path) -> bool:
    """Whether a function of the module, or a method, has a parameter of the type Job."""
    functions = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)
    ]
    given = [
        argument.annotation
        for function in functions
        for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    ]
    return any(isinstance(kind, ast.Name) and kind.id == "Job" for kind in given)


def test_below_the_stages_no_further_module_takes_a_whole_job() -> None:
    below = [path for room in MAY_READ if room != "stages" for path in modules(room)]
    assert {str(path.relative_to(PACKAGE)) for path in below if takes_a_job(path)} == TAKE_A_JOB


def private_names_used(path: Path) -> set[str]:
    """Private functions and values of the package that a file names from outside their module."""
    tree = ast.parse(path.read_text("utf-8"))
    found, own = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recsys_spark"):
            own |= {alias.asname or alias.name for alias in node.names}
            found |= {alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in own:
            found.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr") and len(node.args) > 1:
            target, name = node.args[:2]
            if ast.unparse(target) in own and isinstance(name, ast.Constant):
                found.add(f"{ast.unparse(target)}.{name.value}")
    return {name for name in found if re.search(r"(^|\.)_[a-z]", name, re.IGNORECASE)}


def test_no_private_name_is_used_outside_its_module() -> None:
    """The package itself is ruff's matter, but for compiled helpers that two modules of loops share."""
    users = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    wrong = {f"{path.relative_to(ROOT)}: {name}" for path in users for name in private_names_used(path)}
    assert wrong == set()


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
