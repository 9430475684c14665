"""What a search over parameters may change, within which bounds, and what it tries next.

Proposals are Optuna's tree-structured Parzen estimators (Bergstra, Bardenet, Bengio, Kégl 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from recsys_spark.config.sections import Settings
from recsys_spark.errors import ConfigError
from recsys_spark.names import ALS, CONTENT, HISTORY, POPULARITY, TASKS, TRIAL

STARTUP = 10  # so many trials are drawn at random before their values guide the next ones

Parameters = dict[str, int | float]
Matters = Callable[[Settings], bool]


@dataclass(frozen=True)
class Dimension:
    """A parameter by its section.key in the configuration. Bounds are included; whole bounds: whole values.

    is_log: the search moves by factors, not by steps. matters: whether a configuration makes use of it.
    """

    name: str
    low: int | float
    high: int | float
    is_log: bool
    matters: Matters

    def of(self, settings: Settings) -> int | float:
        section, key = self.name.split(".")
        value: int | float = getattr(getattr(settings, section), key)
        return value

    def holding(self, value: float) -> Dimension:
        """The same with bounds that hold the value."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def rounded(self, value: float) -> int | float:
        """To three digits, which is more than any of these can tell, and within the bounds."""
        if isinstance(self.low, int):
            return int(value)
        return min(max(float(f"{value:.3g}"), self.low), self.high)


def _weighs(*components: str) -> Matters:
    """Whether one of the components has a weight, or may learn one."""

    def matters(settings: Settings) -> bool:
        blend = settings.blend
        fixed = [blend.fixed(task)[name] for task in TASKS for name in components]
        return blend.weights == "learned" or any(fixed)

    return matters


def _alternates(settings: Settings) -> bool:
    return not settings.als.is_linear and _weighs(ALS)(settings)


def _has_confidence(settings: Settings) -> bool:
    return settings.als.feedback == "implicit" and _alternates(settings)


def _has_exponent(settings: Settings) -> bool:
    return settings.als.trainer == "cg" and _weighs(ALS)(settings)


def _fades(settings: Settings) -> bool:
    return settings.history.overdue_half_life > 0 and _weighs(HISTORY)(settings)


SPACE = (
    Dimension("als.rank", 8, 128, is_log=True, matters=_weighs(ALS)),
    Dimension("als.iterations", 5, 25, is_log=False, matters=_alternates),
    Dimension("als.regularization", 0.001, 1.0, is_log=True, matters=_alternates),
    Dimension("als.alpha", 0.1, 100.0, is_log=True, matters=_has_confidence),
    Dimension("als.scaling_exponent", 0.0, 1.0, is_log=False, matters=_has_exponent),
    Dimension("preferences.half_life_days", 7.0, 730.0, is_log=True, matters=_weighs(ALS, HISTORY, CONTENT)),
    Dimension("history.overdue_half_life", 2.0, 100.0, is_log=True, matters=_fades),
    Dimension("popularity.window_days", 3, 90, is_log=True, matters=_weighs(POPULARITY, TRIAL)),
    Dimension("content.ngram", 1, 3, is_log=False, matters=_weighs(CONTENT)),
    Dimension("content.min_items", 1, 20, is_log=True, matters=_weighs(CONTENT)),
    Dimension("content.max_terms", 1000, 50000, is_log=True, matters=_weighs(CONTENT)),
)


def space_of(settings: Settings) -> tuple[Dimension, ...]:
    """The dimensions that matter to the configuration, wide enough to hold what it says."""
    return tuple(one.holding(one.of(settings)) for one in SPACE if one.matters(settings))


def configured(settings: Settings, space: Sequence[Dimension]) -> Parameters:
    """The values that the configuration has now."""
    return {one.name: one.of(settings) for one in space}


def with_parameters(settings: Settings, parameters: Mapping[str, int | float]) -> Settings:
    """The configuration with these values instead of its own; pydantic's ValidationError for a wrong one."""
    values = settings.model_dump()
    for name, value in parameters.items():
        section, key = name.split(".")
        values[section][key] = value
    return Settings.model_validate(values)


def check_optuna() -> None:
    """ConfigError where the optional package is missing: before hours of work, not after the first trial."""
    if find_spec("optuna") is None:
        raise ConfigError("a search needs the package optuna. Next: pip install '.[tune]' in the checkout")


def proposed(
    space: Sequence[Dimension], known: Sequence[tuple[Parameters, float | None]], *, seed: int
) -> Parameters:
    """What to try after the known trials; a function of the arguments only.

    known: parameters and value of each earlier trial, None where it failed. More is better.
    """
    import optuna  # noqa: PLC0415 - an optional package
    from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution  # noqa: PLC0415
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, BaseDistribution] = {
        one.name: IntDistribution(one.low, one.high, log=one.is_log)
        if isinstance(one.low, int) and isinstance(one.high, int)
        else FloatDistribution(one.low, one.high, log=one.is_log)
        for one in space
    }
    # Each parameter by itself: with few trials the joint estimate hardly leaves chance behind.
    sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed, multivariate=False)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for parameters, value in known:
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        study.add_trial(
            create_trial(params=dict(parameters), distributions=distributions, value=value, state=state)
        )
    proposal = study.ask(distributions).params
    return {one.name: one.rounded(proposal[one.name]) for one in space}
