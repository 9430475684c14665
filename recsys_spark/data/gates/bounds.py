"""What a suite is made of: a figure and the bounds it must keep, alone or beside the last nights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from recsys_spark.config.sections import Quality
from recsys_spark.data.gates.figures import Figures
from recsys_spark.data.gates.past_nights import Past

# With fewer events of a type to be expected, having none tonight is chance.
_EXPECTED_EVENTS = 100
# The months, and the days of a month, in which a night has events of a January, or of a first.
_LAST_OF_JANUARY, _LAST_OF_FIRST = 2, 4


@dataclass(frozen=True)
class Bound:
    """A figure lies between `low` and `high`, both included; None is no bound."""

    column: str
    low: float | None
    high: float | None
    meaning: str


@dataclass(frozen=True)
class Check:
    """A suite: one row of figures, and the bounds that they must keep."""

    suite: str
    figures: Figures
    bounds: tuple[Bound, ...]


def shares_of(figures: Mapping[str, float]) -> Figures:
    """rejected_share, duplicate_share and unknown_item_share, as far as the figures give them."""
    rows, rows_in, rejected = (figures.get(name) for name in ("rows", "rows_in", "rejected"))
    shares: Figures = {}
    if rows_in and rejected is not None:
        shares["rejected_share"] = rejected / rows_in
        accepted = rows_in - rejected
        if rows is not None and accepted > 0:
            shares["duplicate_share"] = (accepted - rows) / accepted
    if rows and "unknown_items" in figures:
        shares["unknown_item_share"] = figures["unknown_items"] / rows
    return shares


def times_of(
    figures: Mapping[str, float], quality: Quality, *, run_date: date | None = None
) -> tuple[Figures, list[Bound]]:
    """Shares of times that a wrong unit or format gives nearly every row, and their bounds.

    In January and February a night's events are rightly of a January, on the first days of a month rightly
    of a first: these are not judged then.

    figures: of tonight's batch, with `rows` and the counts.
    quality: the largest shares.
    run_date: the night; without it only the years are judged.
    """
    rows = figures.get("rows", 0.0)
    limits = {"before_2000": (quality.max_before_2000_share, "good rows of times before 2000")}
    if run_date is not None and rows >= _EXPECTED_EVENTS:
        if run_date.month > _LAST_OF_JANUARY:
            told = "good rows of a January, far from one: mm for MM makes each month a January"
            limits["in_january"] = (quality.max_january_share, told)
        if run_date.day > _LAST_OF_FIRST:
            told = "good rows of the first of a month: a day that was not read becomes one"
            limits["on_first"] = (quality.max_first_of_month_share, told)
    names = {"in_january": "january_share", "on_first": "first_of_month_share"}
    shares: Figures = {}
    bounds = []
    for count, (high, meaning) in limits.items():
        if rows and count in figures:
            name = names.get(count, f"{count}_share")
            shares[name] = figures[count] / rows
            bounds.append(at_most(name, high, meaning))
    return shares, bounds


def volume_of(
    figures: Mapping[str, float], past: Past, quality: Quality, *, low: float, high: float
) -> tuple[Figures, list[Bound]]:
    """The figure volume_ratio, tonight's rows against the median night's, and its bound.

    Neither where too few nights are known, or nothing is known of their rows or of tonight's.

    figures: of tonight's batch; only `rows` is read.
    past: the nights before, and what the same night took in before this batch.
    quality: says from how many nights on (min_history_nights) there is a comparison.
    low: the least ratio that passes.
    high: the largest ratio that passes.
    """
    usual = past.usual("rows")
    if not usual or len(past.nights) < quality.min_history_nights or "rows" not in figures:
        return {}, []
    ratio = past.with_tonight("rows", figures["rows"]) / usual
    meaning = f"rows of this night against {usual:,.0f}, the median of the last {len(past.nights)} nights"
    return {"volume_ratio": ratio}, [Bound("volume_ratio", low, high, meaning)]


def compared_with(
    figures: Mapping[str, float],
    past: Past,
    quality: Quality,
    *,
    nullable: Sequence[str] = (),
    types: Sequence[str] = (),
    steps: Mapping[str, float] | None = None,
) -> tuple[Figures, list[Bound]]:
    """Shares of nulls and of types against the median night's, and their bounds.

    Neither where too few nights are known, or tonight's rows are too few.

    figures: of tonight's batch, with `rows` and the counts that are compared.
    past: the nights before.
    quality: the least numbers of nights and rows, and how far a share may move.
    nullable: columns whose share of nulls may rise by max_null_share_change, and fall as it likes.
    types: counts of rows of a type, whose shares may move by max_event_share_change, up or down. That of a
        common type keeps min_event_share_ratio of its median as well.
    steps: further counts, and how far the share of each may move, up or down.
    """
    rows = figures.get("rows", 0.0)
    if len(past.nights) < quality.min_history_nights or rows < quality.min_history_rows:
        return {}, []
    shares: Figures = {}
    bounds: list[Bound] = []
    nulls = [f"null_{name}" for name in nullable]
    allowed = {
        **dict.fromkeys(nulls, quality.max_null_share_change),
        **dict.fromkeys(types, quality.max_event_share_change),
        **(steps or {}),
    }
    for name, step in allowed.items():
        usual = past.usual(name, per="rows")
        if usual is None or name not in figures:
            continue
        shares[f"{name}_share"] = figures[name] / rows
        meaning = f"share of good rows; the median of the last {len(past.nights)} nights is {usual:.3f}"
        low = None if name in nulls else max(usual - step, 0.0)
        if name in types:
            low = _least_share(usual, step, rows, quality)
        bounds.append(Bound(f"{name}_share", low, min(usual + step, 1.0), meaning))
    return shares, bounds


def _least_share(usual: float, step: float, rows: float, quality: Quality) -> float:
    """The smallest share that a type may fall to; a type of few expected events may be absent."""
    is_common = usual * rows >= _EXPECTED_EVENTS
    return max(usual - step, usual * quality.min_event_share_ratio if is_common else 0.0, 0.0)


def suite_of(suite: str, figures: Mapping[str, float], bounds: Sequence[Bound]) -> Check:
    """A suite over the figures that were counted; a bound on another figure has nothing to judge."""
    judged = tuple(bound for bound in bounds if bound.column in figures)
    return Check(suite, {bound.column: figures[bound.column] for bound in judged}, judged)


def none_of(column: str, meaning: str) -> Bound:
    return Bound(column, None, 0, meaning)


def at_most(column: str, high: float, meaning: str) -> Bound:
    return Bound(column, None, high, meaning)
