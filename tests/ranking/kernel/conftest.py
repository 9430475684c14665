"""The engines that every test of the kernel runs with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys_spark.ranking.kernel import engine as kernel_engine
from recsys_spark.ranking.kernel import select as kernel


@pytest.fixture(params=["codes", "float32", "plain"], autouse=True)
def engine(request, monkeypatch) -> Iterator[str]:
    """Every test runs with the processor's product of codes, with numba and BLAS alone, and without numba."""
    if request.param == "plain":
        monkeypatch.setattr(kernel_engine, "compiled_loops", lambda: None)
    elif kernel_engine.compiled_loops() is None:
        pytest.skip("numba is not installed")
    elif request.param == "codes" and kernel_engine.code_loops() is None:
        pytest.skip("this processor has no AVX-512 VNNI")
    if request.param != "codes":
        monkeypatch.setattr(kernel, "code_loops", lambda: None)
    return request.param
