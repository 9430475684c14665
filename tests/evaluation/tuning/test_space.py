"""What a search may change, and what it tries next: a function of what was tried."""

from __future__ import annotations

import math
from statistics import median

import pytest

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Ratings
from recsys_spark.evaluation.tuning.space import (
    SPACE,
    STARTUP,
    Dimension,
    configured,
    proposed,
    space_of,
    with_parameters,
)
from tests.settings import changed

TWO = (
    Dimension("als.rank", 8, 128, is_log=True, matters=lambda _: True),
    Dimension("als.alpha", 0.1, 100.0, is_log=True, matters=lambda _: True),
)


def worth(parameters: dict) -> float:
    """Best at alpha 3, whatever the rank."""
    return -abs(math.log(parameters["als.alpha"] / 3.0))


def studied(trials: int, known: list | None = None) -> list:
    known = [*(known or [])]
    while len(known) < trials:
        tried = proposed(TWO, known, seed=7 + len(known))
        known.append((tried, None if len(known) % 5 == 4 else worth(tried)))
    return known


def searched(**sections: dict) -> set[str]:
    """The names of what a search may change, where these values stand in the sections."""
    return {one.name for one in space_of(changed(load_settings("demo"), **sections))}


def test_a_study_that_was_interrupted_goes_on_as_if_it_had_not_been() -> None:
    whole = studied(STARTUP + 6)
    assert studied(STARTUP + 6, whole[:4]) == whole
    assert studied(STARTUP + 6, whole[: STARTUP + 3]) == whole
    assert len({tried["als.alpha"] for tried, _ in whole}) > STARTUP, "no two trials draw the same numbers"


def test_values_of_trials_guide_later_ones_and_failed_trials_do_not_stop_them() -> None:
    trials = range(STARTUP, STARTUP + 15)
    guided = [worth(tried) for tried, _ in studied(trials.stop)[STARTUP:]]
    alone = [worth(proposed(TWO, [], seed=7 + number)) for number in trials]
    assert median(guided) > median(alone) + 0.3


def test_proposals_keep_within_bounds_in_three_digits() -> None:
    for tried, _ in studied(STARTUP + 4):
        assert isinstance(tried["als.rank"], int)
        assert 8 <= tried["als.rank"] <= 128
        assert 0.1 <= tried["als.alpha"] <= 100.0
        assert float(f"{tried['als.alpha']:.3g}") == tried["als.alpha"]


def test_only_what_the_configuration_makes_use_of_is_searched() -> None:
    words = {"content.ngram", "content.min_items", "content.max_terms"}
    everything = {one.name for one in SPACE}
    assert searched() == everything - {"als.scaling_exponent"}
    assert searched(als={"trainer": "cg"}) == everything
    of_als = {"als.iterations", "als.regularization", "als.alpha", "als.scaling_exponent"}
    assert searched(als={"trainer": "svd"}) == everything - of_als
    ratings = Ratings(event_type="purchase", low="exclude", min=0, max=5, neutral=3)
    assert "als.alpha" not in searched(als={"feedback": "explicit"}, preferences={"ratings": ratings})
    alone = {"repeats_allowed": {"history": 1.0}, "new_items_only": {"content": 1.0}}
    assert searched(blend=alone) == {"preferences.half_life_days", "history.overdue_half_life", *words}
    assert searched(blend={**alone, "weights": "learned"}) == searched()
    assert "history.overdue_half_life" not in searched(history={"overdue_half_life": 0.0})


def test_bounds_are_wide_enough_for_what_is_configured() -> None:
    settings = changed(load_settings("demo"), als={"rank": 300, "alpha": 0.01})
    bounds = {one.name: (one.low, one.high) for one in space_of(settings)}
    assert bounds["als.rank"] == (8, 300)
    assert bounds["als.alpha"] == (0.01, 100.0)


def test_parameters_of_the_configuration_leave_it_as_it_is_and_others_change_only_themselves() -> None:
    settings = load_settings("demo")
    own = configured(settings, space_of(settings))
    assert own["als.rank"] == 64
    assert own["preferences.half_life_days"] == 90.0
    assert with_parameters(settings, own) == settings
    other = with_parameters(settings, {**own, "als.rank": 11})
    assert other.als.rank == 11
    assert other.model_copy(update={"als": settings.als}) == settings


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ValueError, match="als.rank"):
        with_parameters(load_settings("demo"), {"als.rank": 0})
