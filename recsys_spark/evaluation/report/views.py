"""From a night's figures to what its page shows: key figures, drawings, orders, safe links."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from markupsafe import Markup

from recsys_spark.evaluation.report import charts, charts_models
from recsys_spark.evaluation.report.contents import LongTail, NightReport, Slices, Slot, UserStory
from recsys_spark.evaluation.report.svg import compact, duration
from recsys_spark.names import HEADLINE, HYBRID
from recsys_spark.titles import clip, one_line

WIDE, NARROW = 880, 360

_SECRET = re.compile(r"passw|secret|token|salt|credential|(^|[._-])(key|dsn)$", re.IGNORECASE)
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_TONES = {
    "published": "good",
    "accepted": "good",
    "passed": "good",
    "rejected": "bad",
    "failed": "bad",
}
_PHASES = {
    "ingest": "data",
    "clean": "data",
    "preferences": "data",
    "train_als": "model",
    "train_content": "model",
    "train_blend": "model",
    "recommend": "list",
    "evaluate": "list",
}


@dataclass(frozen=True)
class Figure:
    """One of the large numbers at the top; `note` is its small print."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


def verdict_tone(verdict: str) -> str:
    return _TONES.get(verdict.casefold(), "fair")


def key_figures(night: NightReport) -> list[Figure]:
    """Users, lists, the blend against the best single model, minutes, memory: what is known of them."""
    users = _counted(night, night.user_count, "users")
    lists = _counted(night, night.list_count, "list rows")
    figures = [
        Figure("users", large(users)) if users is not None else None,
        _list_figure(night, lists),
        headline(night),
        Figure("duration", duration(night.seconds_total), f"{len(night.stages)} stages"),
        Figure("peak memory", f"{night.peak_memory_gb:.1f} GB") if _is_known(night.peak_memory_gb) else None,
    ]
    return [figure for figure in figures if figure is not None]


def _list_figure(night: NightReport, lists: int | None) -> Figure | None:
    if lists is None:
        return None
    is_rows = night.list_count is None
    return Figure("places in lists" if is_rows else "lists", large(lists))


def large(value: int) -> str:
    """In full as long as it fits beside the others."""
    return f"{value:,}" if value < 1_000_000 else compact(value)


def _is_known(value: float | None) -> bool:
    return charts_models.is_number(value)


def _counted(night: NightReport, given: int | None, step_name: str) -> int | None:
    """The number given, or else the rows of the funnel's step of that name."""
    steps = {step.name.casefold(): step.rows for step in night.funnel}
    return given if given is not None else steps.get(step_name)


def headline(night: NightReport) -> Figure | None:
    """NDCG@10 of the blend in the first task that has it, with the lead on the best other model."""
    for task, models in night.metrics.items():
        ours = models.get(HYBRID, {}).get(HEADLINE)
        if ours is None or not math.isfinite(ours):
            continue
        others = [(m.get(HEADLINE), name) for name, m in models.items() if name != HYBRID]
        known = [(value, name) for value, name in others if value is not None and math.isfinite(value)]
        label = f"NDCG@10, {spoken(task)}"
        if not known:
            return Figure(label, charts_models.readable(ours), "nothing to compare with")
        best, name = max(known)
        lead = f"{100 * (ours / best - 1):+.1f} % " if best > 0 else ""
        note = f"{lead}against {name} at {charts_models.readable(best)}"
        return Figure(label, charts_models.readable(ours), note, "good" if ours > best else "bad")
    return None


def spoken(name: str) -> str:
    return clip(name.replace("_", " "), 60)


# ------------------------------------------------------------------ drawings


def both(draw: Callable[[int], Markup]) -> dict[str, Markup]:
    """The same drawing for a desk and for a telephone; the page shows one of them."""
    return {"wide": draw(WIDE), "narrow": draw(NARROW)}


def timeline(night: NightReport) -> dict[str, Markup]:
    bars = [
        charts.TimelineBar(
            name=clip(row.stage, 16),
            seconds=row.seconds if math.isfinite(row.seconds) else 0.0,
            note=" → ".join(
                compact(rows) if rows is not None else "–" for rows in (row.rows_in, row.rows_out)
            ),
            class_=f"phase-{_PHASES.get(row.stage, 'out')}",
        )
        for row in night.stages
    ]
    total = night.seconds_total
    return both(lambda width: charts.timeline(bars, total_seconds=total, width=width))


def funnel(night: NightReport) -> dict[str, Markup]:
    bars = [charts.FunnelBar(step.name, step.rows, step.note, step.is_loss) for step in night.funnel]
    return both(lambda width: charts.funnel(bars, width=width))


def event_span(night: NightReport) -> str:
    """How many events there are, and from when to when."""
    days = [when for when, _ in night.events_per_day]
    total = sum(count for _, kinds in night.events_per_day for count in kinds.values())
    return f"{total:,} events from {day(min(days))} to {day(max(days))}." if days else ""


def events(night: NightReport) -> dict[str, Markup]:
    return both(lambda width: charts.stacked_area(night.events_per_day, width=width))


# ------------------------------------------------------------------ long tail


@dataclass(frozen=True)
class TailRow:
    """One line of the table below the curves."""

    name: str
    items: int
    top_ten: float
    top_hundred: float
    top_percent: float
    half_of_all: int


@dataclass(frozen=True)
class TailView:
    rows: list[TailRow]
    pictures: list[Markup]


def tail(long_tail: LongTail) -> TailView | None:
    """Curves and figures of what people chose and of what was recommended; None when neither is known."""
    named = {"what people chose": long_tail.before, "what was recommended": long_tail.after}
    curves = {name: charts_models.falling_shares(counts) for name, counts in named.items()}
    curves = {name: shares for name, shares in curves.items() if shares}
    if not curves:
        return None
    pictures = [charts_models.rank_curves(curves, is_cumulative=is_cum) for is_cum in (False, True)]
    return TailView([tail_row(name, shares) for name, shares in curves.items()], pictures)


def tail_row(name: str, shares: Sequence[float]) -> TailRow:
    """Shares of the head, and how many items it takes to reach half of everything."""
    taken, half = 0.0, 0
    while taken < 0.5 - 1e-12:
        taken += shares[half]
        half += 1
    head = charts_models.share_of_head
    one_percent = max(round(len(shares) / 100), 1)
    return TailRow(name, len(shares), head(shares, 10), head(shares, 100), head(shares, one_percent), half)


# ------------------------------------------------------------------ models


@dataclass(frozen=True)
class TaskView:
    """One task: what its lists weigh, a drawing and a row for each metric, who wins, NDCG@10 by slices."""

    name: str
    weights: Sequence[str]
    pictures: list[Markup]
    models: list[str]
    metrics: list[str]
    values: Mapping[str, Mapping[str, float | None]]
    verdict: str
    slices: Slices


def task(night: NightReport, name: str) -> TaskView:
    values = night.metrics[name]
    metrics = list(dict.fromkeys(metric for by_metric in values.values() for metric in by_metric))
    models = ordered_models(values, metrics)
    intervals = night.intervals.get(name, {})
    pictures = [
        charts_models.model_bars(
            clip(metric, 40),
            {model: values[model].get(metric) for model in models},
            highlight=HYBRID,
            intervals={m: intervals[m][metric] for m in models if metric in intervals.get(m, {})},
        )
        for metric in metrics
    ]
    verdict, slices = night.verdicts.get(name, ""), night.slices.get(name, {})
    weights = night.weights.get(name, ())
    return TaskView(spoken(name), weights, pictures, models, metrics, values, verdict, slices)


def ordered_models(values: Mapping[str, Mapping[str, float | None]], metrics: Sequence[str]) -> list[str]:
    """The blend first, then the others by the headline metric (or the first there is), best first."""
    by = HEADLINE if HEADLINE in metrics else next(iter(metrics), "")

    def key(model: str) -> tuple[bool, float, str]:
        value = values[model].get(by)
        return (model != HYBRID, -value if value is not None and math.isfinite(value) else math.inf, model)

    return sorted(values, key=key)


# ------------------------------------------------------------------ users


@dataclass(frozen=True)
class StoryView:
    user: UserStory
    slots: list[tuple[Slot, Markup]]
    most_times: int


def story(user: UserStory, classes: Mapping[str, str]) -> StoryView:
    """A user with each slot's components drawn on one scale."""
    slots = sorted(user.slots, key=lambda slot: slot.rank)
    scale = charts_models.contribution_scale([slot.components for slot in slots])
    drawn = [
        (slot, charts_models.contribution_bar(slot.components, classes=classes, scale=scale))
        for slot in slots
    ]
    return StoryView(user, drawn, max([line.times for line in user.history] + [1]))


# ------------------------------------------------------------------ small print


def flattened(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`section.key` and its value as text, in order; what looks like a secret is not shown."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flattened(value, f"{name}.")
        else:
            yield name, "not shown" if _SECRET.search(name) else clip(value, 300)


def is_safe_link(href: str) -> bool:
    """True for a relative path and for https; `javascript:` and its kin are shown as text.

    Browsers drop tabs and line breaks from an address before they read its scheme, so none may be in it.
    """
    is_plain = href == one_line(href) and " " not in href and "\\" not in href
    is_relative = not _SCHEME.match(href) and not href.startswith("//")
    return is_plain and (is_relative or href.startswith("https://"))


def day(value: date | datetime | None) -> str:
    """14 Jun 2017; a time of day is left out."""
    return "–" if value is None else f"{value.day} {value:%b %Y}"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
