"""What is said of the blend's weights."""

from __future__ import annotations

from recsys_spark.config.load import load_settings
from recsys_spark.config.sections import Blend
from recsys_spark.evaluation.sentences import weight_sentences
from recsys_spark.names import COMPONENTS
from recsys_spark.ranking.blend import Variant

TASK = "new_items_only"
START = {"als": 1.0, "trial": 2.0, "content": 0.3}


def sentences(bins: dict[int, dict[str, float]], *, weights: str) -> tuple[str, ...]:
    blend = load_settings("demo").blend.model_dump() | {"weights": weights, TASK: START}
    whole = {at: {name: given.get(name, 0.0) for name in COMPONENTS} for at, given in bins.items()}
    return weight_sentences({TASK: Variant.binned(TASK, "hybrid", whole)}, Blend(**blend))[TASK]


def test_configured_weights_are_said_to_be_configured() -> None:
    assert sentences({0: START}, weights="fixed") == (
        "weights as configured",
        "all users: als 1, content 0.3, trial 2",
    )


def test_where_learning_proved_nothing_it_is_said_what_lost_its_weight() -> None:
    assert sentences({0: {"als": 1.0, "trial": 2.0}, 20: {"als": 1.0, "trial": 2.0}}, weights="learned") == (
        "weights as configured, since learning proved none better",
        "all users: als 1, trial 2; no weight without a gain: content",
    )


def test_learned_weights_are_told_for_each_kind_of_users() -> None:
    bins = {0: {"popularity": 1.0}, 20: {"popularity": 1.0}, 100: START | {"als": 0.7}}
    assert sentences(bins, weights="learned") == (
        "weights learned",
        "users of 0 to 99 items: popularity 1; no weight without a gain: als, content, trial",
        "users of 100 or more items: als 0.7, content 0.3, trial 2",
    )
