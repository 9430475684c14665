"""Steps of a stage side by side, where none needs what another leaves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")
# Each step's queries use all cores: more of them at once only hold more memory.
_AT_ONCE = 4


def in_parallel(*steps: Callable[[], _Result]) -> list[_Result]:
    """What the steps give, in their order. All have ended before the first fault, in that order, is raised.

    A query is planned, and a commit written, by one thread of the driver, while the other cores and all
    executors wait: a table of a few rows costs half a second of that.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        running = [threads.submit(step) for step in steps]
    return [step.result() for step in running]
