"""The suites: what the figures of a batch must be, and why, for Great Expectations to judge.

Each suite is one row of figures and a bound for each. What depends on earlier nights is left out until
enough of them are known, and never waves anything else through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

from recsys_spark.config.sections import Clean, Quality
from recsys_spark.data.gates.bounds import (
    Bound,
    Check,
    at_most,
    compared_with,
    none_of,
    shares_of,
    suite_of,
    times_of,
    volume_of,
)
from recsys_spark.data.gates.figures import age_days
from recsys_spark.data.gates.past_nights import Past
from recsys_spark.data.kinds.outcomes import OUTCOME_TYPES
from recsys_spark.data.kinds.users import GROUPS
from recsys_spark.data.unsubscribes import UNMATCHED, UNSUBSCRIBE

_NOTHING_BEFORE = Past()
# A name in ops.quality_results and in Data Docs: it stays.
_WHOLE_SUITE = "silver.interactions.profile"
_REPEATED = "rows that repeat the key of another after deduplication"
_ONCE, _BROKE = "good rows, each once", "rows that broke a row rule"
_LOST = "what the full delivery before had and this one lacks"
_AGE, _AGE_MEANING = "newest_age_days", "days from the newest known event to the run date"


def interaction_check(figures: Mapping[str, float]) -> Check:
    """What the good interactions of a batch must be, as rows: the row rules' own promise, counted again."""
    zero = [
        none_of(f"null_{name}", f"good rows without {name}")
        for name in ("event_id", "user_id", "item_id", "event_type", "event_at")
    ]
    zero += [
        none_of("unknown_event_type", "good rows of a type that clean.event_types does not name"),
        none_of(
            "out_of_range_quantity", "good rows whose quantity is no number or beyond clean.max_abs_value"
        ),
        none_of("out_of_range_value", "good rows whose value is no number or beyond clean.max_abs_value"),
        none_of("duplicate_keys", _REPEATED),
    ]
    return suite_of("silver.interactions", figures, zero)


def whole_check(
    figures: Mapping[str, float],
    *,
    quality: Quality,
    clean: Clean,
    run_date: date,
    past: Past = _NOTHING_BEFORE,
) -> Check:
    """What a batch of interactions must be as a whole, beside the items and beside the last nights.

    figures: of the batch, with `unknown_items`; `last_day` is that of the newest event known, in days since
        1970. A batch of late events alone may be as old as it is.
    quality: the thresholds.
    clean: names the types of events whose shares are compared.
    run_date: the night, to which the age of the newest event is counted.
    past: the nights before; while too few are known, neither shares nor rows are compared.
    """
    whole = {**figures, **shares_of(figures), **_age(figures, run_date)}
    bounds = [
        Bound("rows", quality.min_rows, None, _ONCE),
        at_most("rejected_share", quality.max_rejected_share, _BROKE),
        at_most("duplicate_share", quality.max_duplicate_share, "good rows that repeat another's key"),
        at_most("unknown_item_share", quality.max_unknown_item_share, "good rows of items not known"),
        at_most(_AGE, quality.max_age_days, _AGE_MEANING),
    ]
    optional = ("quantity", "value", "basket_id")
    types = [f"events_{name}" for name in clean.event_types]
    compared, more = compared_with(figures, past, quality, nullable=optional, types=types)
    volume = volume_of(figures, past, quality, low=quality.min_volume_ratio, high=quality.max_volume_ratio)
    times, more_times = times_of(figures, quality, run_date=run_date)
    return suite_of(
        _WHOLE_SUITE, whole | compared | volume[0] | times, bounds + more + volume[1] + more_times
    )


def freshness_check(last_day: float, *, quality: Quality, run_date: date) -> Check:
    """What is known must be where no interaction is new: the one figure of the batch that is left."""
    bound = at_most(_AGE, quality.max_age_days, _AGE_MEANING)
    return suite_of(_WHOLE_SUITE, _age({"last_day": last_day}, run_date), [bound])


def repaired_check(figures: Mapping[str, float], *, quality: Quality) -> Check:
    """What rows that come back from the quarantine must be: they are old and few, which is no fault."""
    bound = at_most("unknown_item_share", quality.max_unknown_item_share, "repaired rows of items not known")
    return suite_of("silver.interactions.repaired", {**figures, **shares_of(figures)}, [bound])


def item_check(figures: Mapping[str, float], *, quality: Quality, past: Past = _NOTHING_BEFORE) -> Check:
    """What a batch of items must be; a delivery of items may be all of them or the changed ones."""
    rows = figures.get("rows", 0.0)
    untitled = {"untitled_share": figures["null_title"] / rows} if rows and "null_title" in figures else {}
    bounds = [
        Bound("rows", 1, None, _ONCE),
        none_of("null_item_id", "good rows without item_id"),
        none_of("bad_validity", "versions that end before they begin"),
        none_of("duplicate_keys", _REPEATED),
        at_most("untitled_share", quality.max_untitled_share, "items that a mail could not name"),
        at_most("snapshot_loss", quality.max_snapshot_loss, _LOST),
        at_most("rejected_share", quality.max_rejected_item_share, _BROKE),
    ]
    compared, more = compared_with(figures, past, quality, nullable=("category", "brand", "price"))
    low, high = quality.min_item_volume_ratio, quality.max_item_volume_ratio
    volume = volume_of(figures, past, quality, low=low, high=high)
    whole = {**figures, **shares_of(figures), **untitled, **compared, **volume[0]}
    return suite_of("silver.items", whole, bounds + more + volume[1])


def user_check(figures: Mapping[str, float], *, quality: Quality, past: Past = _NOTHING_BEFORE) -> Check:
    """What a batch of users must be: whoever loses their consent by a wrong mapping gets no mail, and
    whoever is given one gets mail that nobody may send."""
    change = {"consented": quality.max_consent_share_change}
    compared = compared_with(figures, past, quality, nullable=GROUPS, steps=change)
    return _people_check("users", ("user_id", "is_consented"), figures, quality, past, compared)


def audience_check(figures: Mapping[str, float], *, quality: Quality, past: Past = _NOTHING_BEFORE) -> Check:
    """What a batch of members of audiences must be."""
    return _people_check("audiences", ("audience", "user_id"), figures, quality, past, ({}, []))


def _people_check(
    kind: str,
    required: tuple[str, ...],
    figures: Mapping[str, float],
    quality: Quality,
    past: Past,
    compared: tuple[dict[str, float], list[Bound]],
) -> Check:
    bounds = [
        Bound("rows", 1, None, _ONCE),
        *[none_of(f"null_{name}", f"good rows without {name}") for name in required],
        none_of("bad_validity", "versions that end before they begin"),
        none_of("duplicate_keys", _REPEATED),
        at_most("rejected_share", quality.max_rejected_user_share, _BROKE),
        at_most("snapshot_loss", quality.max_snapshot_loss, _LOST),
    ]
    low, high = quality.min_user_volume_ratio, quality.max_user_volume_ratio
    volume = volume_of(figures, past, quality, low=low, high=high)
    whole = {**figures, **shares_of(figures), **compared[0], **volume[0]}
    return suite_of(f"silver.{kind}", whole, [*bounds, *compared[1], *volume[1]])


def outcome_check(figures: Mapping[str, float], *, quality: Quality, past: Past = _NOTHING_BEFORE) -> Check:
    """What a batch of outcomes must be; most of an outcome's types are seldom, and none comes each night."""
    required = ("event_id", "run_date", "channel", "campaign", "user_id", "outcome_type", "event_at")
    bounds = [
        Bound("rows", 1, None, _ONCE),
        *[none_of(f"null_{name}", f"good rows without {name}") for name in required],
        none_of("unknown_outcome_type", "good rows of a type that is none of ours"),
        none_of("duplicate_keys", _REPEATED),
        at_most("rejected_share", quality.max_rejected_outcome_share, _BROKE),
        at_most("duplicate_share", quality.max_duplicate_share, "good rows that repeat another's key"),
    ]
    told = figures.get(f"outcomes_{UNSUBSCRIBE}", 0.0)
    unmatched = {}
    if told and UNMATCHED in figures:
        # Of a few unsubscribes one by a user long gone would be a large share.
        most = quality.max_unmatched_unsubscribe_share if told >= quality.min_unsubscribes else 1.0
        unmatched["unmatched_unsubscribe_share"] = figures[UNMATCHED] / told
        bounds.append(at_most("unmatched_unsubscribe_share", most, "unsubscribes that match nobody"))
    types = [f"outcomes_{name}" for name in OUTCOME_TYPES]
    compared, more = compared_with(figures, past, quality, nullable=("item_id",), types=types)
    low, high = quality.min_outcome_volume_ratio, quality.max_outcome_volume_ratio
    volume = volume_of(figures, past, quality, low=low, high=high)
    times, more_times = times_of(figures, quality)
    whole = {**figures, **shares_of(figures), **unmatched, **compared, **volume[0], **times}
    return suite_of("silver.outcomes", whole, bounds + more + volume[1] + more_times)


# The suites of the kinds that are judged by themselves alone.
SUITES: dict[str, Callable[..., Check]] = {
    "items": item_check,
    "users": user_check,
    "audiences": audience_check,
    "outcomes": outcome_check,
}


def preference_check(
    figures: Mapping[str, float], *, quality: Quality, run_date: date, past: Past = _NOTHING_BEFORE
) -> Check:
    """What one night's preferences must be before a model is trained on them."""
    whole = {**figures, **shares_of(figures), **_age(figures, run_date)}
    bounds = [
        Bound("rows", quality.min_preferences, None, "pairs of user and item"),
        *[
            none_of(f"null_{name}", f"pairs without {name}")
            for name in ("user_id", "item_id", "strength", "last_event_at")
        ],
        none_of("bad_strength", "strengths that are no number, below 0, or above preferences.cap"),
        none_of("bad_events", "pairs of fewer than no events"),
        none_of("duplicate_keys", "pairs that repeat another"),
        at_most("unknown_item_share", quality.max_unknown_item_share, "pairs of items not known"),
        at_most(_AGE, quality.max_age_days, "days from the newest event to the run date"),
    ]
    volume = volume_of(figures, past, quality, low=quality.min_volume_ratio, high=quality.max_volume_ratio)
    return suite_of("silver.preferences", whole | volume[0], bounds + volume[1])


def list_check(figures: Mapping[str, float], *, quality: Quality, past: Past = _NOTHING_BEFORE) -> Check:
    """What all staged lists of a night must be together; each campaign is judged by the publish gate."""
    bounds = [
        Bound("rows", 1, None, "slots in lists"),
        none_of("null_values", "slots without user, item, rank, score, channel or campaign"),
        none_of("out_of_range_rank", "slots ranked below 1 or beyond the campaign's k"),
        none_of("duplicates", "items twice in one list"),
        none_of("gaps", "lists whose ranks are not 1, 2, 3, …"),
        none_of("not_finite", "scores that are no number or infinite"),
        none_of("unknown_items", "slots with an item that is not known"),
        none_of("not_on_sale", "slots with an item that is not valid or not available on the run date"),
    ]
    volume = volume_of(figures, past, quality, low=quality.min_volume_ratio, high=quality.max_volume_ratio)
    return suite_of("gold.recommendations", {**figures, **volume[0]}, bounds + volume[1])


def _age(figures: Mapping[str, float], run_date: date) -> dict[str, float]:
    age = age_days(figures, run_date)
    return {} if age is None else {_AGE: age}
