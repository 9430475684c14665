"""Peak memory of this process and all its children: driver, JVM and Python workers together."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

_EVERY_SECONDS = 1.0


class MemoryWatch:
    """Samples the process tree's memory while it is open; `peak_gb` is the highest sum seen.

    Python workers are forks that share pages, so they count by proportional set size where the system
    gives it. The JVM shares nothing and counts by resident size: asking for its proportional one walks
    gigabytes of page tables and holds its threads up meanwhile.
    """

    def __init__(self) -> None:
        self.peak_gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        # Under spark-submit the JVM is this process's parent, and its memory is the job's too.
        parent = me.parent()
        root = parent if parent is not None and "java" in parent.name() else me
        while not self._stop.is_set():
            self.peak_gb = max(self.peak_gb, _tree_gb(root))
            self._stop.wait(_EVERY_SECONDS)


def _tree_gb(root: psutil.Process) -> float:
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            is_fork = "python" in process.name() and len(process.cmdline())
            memory = process.memory_full_info() if is_fork else process.memory_info()
            total += getattr(memory, "pss", 0) or memory.rss
        except psutil.Error:
            continue
    return total / 1e9
