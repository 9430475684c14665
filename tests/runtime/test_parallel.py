"""Steps that run side by side, and what a fault in one of them means for the others."""

from __future__ import annotations

from threading import Barrier

import pytest

from recsys_spark.runtime.parallel import in_parallel


def test_steps_run_side_by_side_and_give_their_results_in_order() -> None:
    both = Barrier(2)
    # Each waits for the other: one after the other they would wait in vain.
    assert in_parallel(lambda: both.wait(20) * 0 + 1, lambda: both.wait(20) * 0 + 2) == [1, 2]
    assert in_parallel() == []


def test_the_first_fault_is_raised_when_all_steps_have_ended() -> None:
    both, ended = Barrier(2), []

    def fails(message: str) -> None:
        both.wait(20)
        raise ValueError(message)

    def ends() -> None:
        ended.append(True)

    with pytest.raises(ValueError, match="first"):
        in_parallel(lambda: fails("first"), lambda: fails("second"), ends)
    assert ended == [True]
