"""Style, types and tests, as `make test` runs them: `check.py [--lint | --quick | --golden | --soak]`.

--quick leaves out every test that starts Spark, and those of the DAGs; --soak runs only what takes long.

Every step runs, also after one has failed, and the last line adds up the test runners' own figures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "reports"
BIN = ROOT / ".venv" / "bin"
NOTHING_COLLECTED = 5


@dataclass(frozen=True)
class Step:
    name: str
    command: tuple[str, ...]
    report: Path | None = None


def lint_steps() -> list[Step]:
    return [
        Step("ruff check", (f"{BIN}/ruff", "check", ".")),
        Step("ruff format", (f"{BIN}/ruff", "format", "--check", ".")),
        Step("mypy", (f"{BIN}/mypy",)),
    ]


def site_steps() -> list[Step]:
    """The documents' site, where its environment is there: --strict, so that no link in it is dead."""
    mkdocs = ROOT / ".venv-docs" / "bin" / "mkdocs"
    return [Step("site", (str(mkdocs), "build", "--quiet", "--strict"))] if mkdocs.exists() else []


def pytest_steps(*only: str) -> list[Step]:
    """The project's tests in its environment, the DAGs' tests in Airflow's: the two cannot share one."""
    ours, dags = REPORTS / "tests.xml", REPORTS / "dags.xml"
    # An ini and conftest border of its own keep the DAGs' tests from loading tests/conftest.py (pyspark).
    border = ("-c", "tests/dags/pytest.ini", "--rootdir", "tests/dags", "--confcutdir", "tests/dags")
    pytest_ours = (f"{BIN}/pytest", "tests", "--ignore=tests/dags", f"--junitxml={ours}", *only)
    pytest_dags = (f"{ROOT}/.venv-airflow/bin/pytest", *border, "tests/dags", f"--junitxml={dags}", *only)
    return [Step("tests", pytest_ours, ours), Step("tests of the DAGs", pytest_dags, dags)]


def passes(*together: Step) -> list[bool]:
    """Run the steps side by side: the first one's output as it comes, the others' whole, afterwards.

    Where the first is of tests it makes the night of the made-up shop in a folder where the others find it.
    """
    night = REPORTS.parent / "night"
    env = os.environ | {"TESTS_NIGHT": str(night), "NO_MKDOCS_2_WARNING": "1"}
    first, *others = together
    if first.report:
        shutil.rmtree(night, ignore_errors=True)
    for step in together:
        if step.report:
            step.report.unlink(missing_ok=True)
    print(f"\n=== {first.name}", flush=True)
    started = [(step, REPORTS / f"{step.name.replace(' ', '-')}.log") for step in others]
    behind = [subprocess.Popen(step.command, cwd=ROOT, env=env, **_into(log)) for step, log in started]
    codes = [subprocess.run(first.command, cwd=ROOT, env=env, check=False).returncode]
    if first.report and not (night / "_done").exists():
        night.mkdir(parents=True, exist_ok=True)
        (night / "_done").write_text("broken")  # or the others would wait for it
    for (step, log), process in zip(started, behind, strict=True):
        codes.append(process.wait())
        print(f"\n=== {step.name}\n{log.read_text(encoding='utf-8', errors='replace')}", flush=True)
    return [_is_fine(step, code) for step, code in zip(together, codes, strict=True)]


def _into(log: Path) -> dict[str, Any]:
    return {"stdout": log.open("wb"), "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}


def _is_fine(step: Step, code: int) -> bool:
    return code == 0 or (bool(step.report) and "-k" in step.command and code == NOTHING_COLLECTED)


def figures(reports: list[Path]) -> Counter[str]:
    """How many tests passed, failed, erred and were skipped, from the runners' own reports."""
    total: Counter[str] = Counter()
    for report in reports:
        for suite in ET.parse(report).iter("testsuite") if report.exists() else []:
            count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
            total["failed"] += count["failures"]
            total["error"] += count["errors"]
            total["skipped"] += count["skipped"]
            total["passed"] += count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    return total


def main() -> int:
    start = time.monotonic()
    REPORTS.mkdir(parents=True, exist_ok=True)
    if "--golden" in sys.argv:
        tests, alone = pytest_steps("-k", "golden"), []
    elif "--quick" in sys.argv:
        tests, alone = pytest_steps("-m", "not spark and not soak", "--durations=5")[:1], lint_steps()
    elif "--soak" in sys.argv:
        tests, alone = pytest_steps("-m", "soak"), []
    else:
        tests, alone = pytest_steps(), [*lint_steps(), *site_steps()]
    # The DAGs' tests wait a lot (for Airflow, for executors to start): side by side all end sooner.
    steps = alone if "--lint" in sys.argv else [tests[0], *alone, *tests[1:]]
    fine = passes(*steps)
    failed = [step.name for step, ok in zip(steps, fine, strict=True) if not ok]
    total = figures([step.report for step in steps if step.report])
    words = [f"{total[key]} {key}" for key in ("failed", "passed", "skipped", "error") if total[key]]
    if failed:
        print(f"\nnot clean: {', '.join(failed)}")
    print(f"\n=== {', '.join(words) or 'style and types'} in {time.monotonic() - start:.0f} s ===")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
