"""The compiled loops, where the package is in a wheel: compiled once, in a folder of this user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import recsys_spark
from recsys_spark.ranking.kernel import engine as kernel_engine
from recsys_spark.runtime import compiled


def test_compiled_loops_work_and_are_cached_when_the_package_is_in_a_wheel(engine, tmp_path):
    best = "float32" if kernel_engine.code_loops() is None else "codes"
    if engine != best:
        pytest.skip("about the compiled loops that this processor uses")
    loops = {"float32": "compiled_loops().take_tile", "codes": "code_loops().take_codes"}[best]
    package = Path(recsys_spark.__file__).parent
    wheel = tmp_path / "recsys_spark-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [
            "__init__.py",
            "runtime/__init__.py",
            "runtime/compiled.py",
            *(f"ranking/kernel/{path.name}" for path in (package / "ranking" / "kernel").glob("*.py")),
        ]:
            archive.write(package / name, f"recsys_spark/{name}")
        archive.writestr("recsys_spark/ranking/__init__.py", "")
    program = (
        "import numpy as np; from recsys_spark.ranking.kernel import engine as e, select as kernel;"
        "print(kernel.select(kernel.ItemParts(np.eye(3, dtype=np.float32)), kernel.UserParts(np.eye(3)), 1)[0].ravel(),"
        f"e.__file__, sum(e.{loops}.stats.cache_hits.values()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(wheel), "TMPDIR": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    answers = [
        subprocess.run(
            [sys.executable, "-P", "-c", program],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert [answer[:3] for answer in answers] == [["[0", "1", "2]"]] * 2
    assert str(wheel) in answers[0][3]
    assert [answer[-1] for answer in answers] == ["0", "1"], (
        "the second process must find the first one's code"
    )


def test_a_cache_folder_that_others_could_write_to_is_not_used(monkeypatch, tmp_path):
    folder = tmp_path / f"recsys-spark-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    chosen = compiled.private_folder()
    assert chosen != folder
    assert chosen.stat().st_mode & 0o077 == 0
    shutil.rmtree(chosen)
