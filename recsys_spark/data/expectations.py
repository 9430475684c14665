"""The suites: what the figures of a batch must be, and why, for Great Expectations to judge.

Each suite is one row of figures and a bound for each. What depends on earlier nights is left out until
enough of them are known, and never waves anything else through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from recsys_spark.config import Clean, Quality
from recsys_spark.data.history import Past
from recsys_spark.data.profile import Figures, age_days

_NOTHING_BEFORE = Past()
# With fewer events of a type to be expected, having none tonight is chance.
_EXPECTED_EVENTS = 100


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


def interaction_check(figures: Mapping[str, float]) -> Check:
    """What the good interactions of a batch must be, as rows: the row rules' own promise, counted again."""
    zero = [
        _none(f"null_{name}", f"good rows without {name}")
        for name in ("event_id", "user_id", "item_id", "event_type", "event_at")
    ]
    zero += [
        _none("unknown_event_type", "good rows of a type that clean.event_types does not name"),
        _none("out_of_range_quantity", "good rows whose quantity is no number or beyond clean.max_abs_value"),
        _none("out_of_range_value", "good rows whose value is no number or beyond clean.max_abs_value"),
        _none("duplicate_keys", "rows that repeat the key of another after deduplication"),
    ]
    return _check("silver.interactions", figures, zero)


def profile_check(
    figures: Mapping[str, float],
    *,
    quality: Quality,
    clean: Clean,
    run_date: date,
    past: Past = _NOTHING_BEFORE,
) -> Check:
    """What a batch of interactions must be as a whole, beside the items and beside the last nights."""
    shares = _shares(figures)
    age = age_days(figures, run_date)
    whole = {**figures, **shares} | ({} if age is None else {"newest_age_days": age})
    bounds = [
        Bound("rows", quality.min_rows, None, "good rows, each once"),
        _at_most("rejected_share", quality.max_rejected_share, "rows that broke a row rule"),
        _at_most("duplicate_share", quality.max_duplicate_share, "good rows that repeat another's key"),
        _at_most("unknown_item_share", quality.max_unknown_item_share, "good rows of items not known"),
        _at_most("newest_age_days", quality.max_age_days, "days from the newest event to the run date"),
    ]
    optional = ("quantity", "value", "basket_id")
    types = [f"events_{name}" for name in clean.event_types]
    compared, more = _compared(figures, past, quality, nullable=optional, types=types)
    volume = _volume(figures, past, quality, low=quality.min_volume_ratio, high=quality.max_volume_ratio)
    return _check("silver.interactions.profile", whole | compared | volume[0], bounds + more + volume[1])


def repaired_check(figures: Mapping[str, float], *, quality: Quality) -> Check:
    """What rows that come back from the quarantine must be: they are old and few, which is no fault."""
    bound = _at_most("unknown_item_share", quality.max_unknown_item_share, "repaired rows of items not known")
    return _check("silver.interactions.repaired", {**figures, **_shares(figures)}, [bound])


def item_check(figures: Mapping[str, float], *, quality: Quality, past: Past = _NOTHING_BEFORE) -> Check:
    """What a batch of items must be; a delivery of items may be all of them or the changed ones."""
    rows = figures.get("rows", 0.0)
    untitled = {"untitled_share": figures["null_title"] / rows} if rows and "null_title" in figures else {}
    bounds = [
        Bound("rows", 1, None, "good rows, each once"),
        _none("null_item_id", "good rows without item_id"),
        _none("bad_validity", "versions that end before they begin"),
        _none("duplicate_keys", "rows that repeat the key of another after deduplication"),
        _at_most("untitled_share", quality.max_untitled_share, "items that a mail could not name"),
        _at_most("rejected_share", quality.max_rejected_item_share, "rows that broke a row rule"),
    ]
    compared, more = _compared(figures, past, quality, nullable=("category", "brand", "price"), types=())
    low, high = quality.min_item_volume_ratio, quality.max_item_volume_ratio
    volume = _volume(figures, past, quality, low=low, high=high)
    whole = {**figures, **_shares(figures), **untitled, **compared, **volume[0]}
    return _check("silver.items", whole, bounds + more + volume[1])


def preference_check(
    figures: Mapping[str, float], *, quality: Quality, run_date: date, past: Past = _NOTHING_BEFORE
) -> Check:
    """What one night's preferences must be before a model is trained on them."""
    age = age_days(figures, run_date)
    whole = {**figures, **_shares(figures)} | ({} if age is None else {"newest_age_days": age})
    bounds = [
        Bound("rows", quality.min_preferences, None, "pairs of user and item"),
        *[
            _none(f"null_{name}", f"pairs without {name}")
            for name in ("user_id", "item_id", "strength", "last_event_at")
        ],
        _none("bad_strength", "strengths that are no number, below 0, or above preferences.cap"),
        _none("bad_events", "pairs of fewer than no events"),
        _none("duplicate_keys", "pairs that repeat another"),
        _at_most("unknown_item_share", quality.max_unknown_item_share, "pairs of items not known"),
        _at_most("newest_age_days", quality.max_age_days, "days from the newest event to the run date"),
    ]
    volume = _volume(figures, past, quality, low=quality.min_volume_ratio, high=quality.max_volume_ratio)
    return _check("silver.preferences", whole | volume[0], bounds + volume[1])


def list_check(figures: Mapping[str, float], *, quality: Quality, past: Past = _NOTHING_BEFORE) -> Check:
    """What all staged lists of a night must be together; each campaign is judged by the publish gate."""
    bounds = [
        Bound("rows", 1, None, "slots in lists"),
        _none("null_values", "slots without user, item, rank, score, channel or campaign"),
        _none("out_of_range_rank", "slots ranked below 1 or beyond the campaign's k"),
        _none("duplicates", "items twice in one list"),
        _none("gaps", "lists whose ranks are not 1, 2, 3, …"),
        _none("not_finite", "scores that are no number or infinite"),
        _none("unknown_items", "slots with an item that is not known or not available"),
    ]
    volume = _volume(figures, past, quality, low=quality.min_volume_ratio, high=quality.max_volume_ratio)
    return _check("gold.recommendations", {**figures, **volume[0]}, bounds + volume[1])


def _shares(figures: Mapping[str, float]) -> Figures:
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


def _volume(
    figures: Mapping[str, float], past: Past, quality: Quality, *, low: float, high: float
) -> tuple[Figures, list[Bound]]:
    """Tonight's rows against the median night's."""
    usual = past.usual("rows")
    if not usual or len(past.nights) < quality.min_history_nights or "rows" not in figures:
        return {}, []
    ratio = past.with_tonight("rows", figures["rows"]) / usual
    meaning = f"rows of this night against {usual:,.0f}, the median of the last {len(past.nights)} nights"
    return {"volume_ratio": ratio}, [Bound("volume_ratio", low, high, meaning)]


def _compared(
    figures: Mapping[str, float],
    past: Past,
    quality: Quality,
    *,
    nullable: Sequence[str],
    types: Sequence[str],
) -> tuple[Figures, list[Bound]]:
    """Shares of nulls and of event types against the median night's; few rows are not compared."""
    rows = figures.get("rows", 0.0)
    if len(past.nights) < quality.min_history_nights or rows < quality.min_history_rows:
        return {}, []
    found: Figures = {}
    bounds: list[Bound] = []
    nulls = [f"null_{name}" for name in nullable]
    steps = dict.fromkeys(nulls, quality.max_null_share_change) | dict.fromkeys(
        types, quality.max_event_share_change
    )
    for name, step in steps.items():
        usual = past.usual(name, per="rows")
        if usual is None or name not in figures:
            continue
        found[f"{name}_share"] = figures[name] / rows
        meaning = f"share of good rows; the median of the last {len(past.nights)} nights is {usual:.3f}"
        low = None if name in nulls else _least_share(usual, step, rows, quality)
        bounds.append(Bound(f"{name}_share", low, min(usual + step, 1.0), meaning))
    return found, bounds


def _least_share(usual: float, step: float, rows: float, quality: Quality) -> float:
    """The smallest share that a type may fall to; a type of few expected events may be absent."""
    is_common = usual * rows >= _EXPECTED_EVENTS
    return max(usual - step, usual * quality.min_event_share_ratio if is_common else 0.0, 0.0)


def _check(suite: str, figures: Mapping[str, float], bounds: Sequence[Bound]) -> Check:
    """A suite over the figures that were counted; a bound on another figure has nothing to judge."""
    judged = tuple(bound for bound in bounds if bound.column in figures)
    return Check(suite, {bound.column: figures[bound.column] for bound in judged}, judged)


def _none(column: str, meaning: str) -> Bound:
    return Bound(column, None, 0, meaning)


def _at_most(column: str, high: float, meaning: str) -> Bound:
    return Bound(column, None, high, meaning)
