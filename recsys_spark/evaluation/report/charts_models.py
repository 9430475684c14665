"""The pictures that compare: long tails before and after, models by metric, components of one score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from markupsafe import Markup

from recsys_spark.evaluation.report.svg import (
    CHARACTER_WIDTH,
    compact,
    join,
    line,
    path,
    percent,
    picture,
    rect,
    text,
)
from recsys_spark.titles import clip

Interval = tuple[float, float]

# ------------------------------------------------------------------ long tails


def falling_shares(counts: Sequence[float]) -> list[float]:
    """Each item's share of the total, largest first; items with nothing (or NaN) are left out."""
    positive = sorted((float(c) for c in counts if c > 0 and math.isfinite(c)), reverse=True)
    total = math.fsum(positive)
    return [count / total for count in positive]


def log_spaced(length: int, points: int = 300) -> list[int]:
    """At most `points` indexes of 0 … length−1, evenly spaced in the logarithm of the rank, ends included."""
    if length <= points:
        return list(range(length))
    ratio = math.log(length) / (points - 1)
    return sorted({min(round(math.exp(ratio * i)), length) - 1 for i in range(points)})


def share_of_head(shares: Sequence[float], items: int) -> float:
    """What the first `items` items take together, of 1."""
    return math.fsum(shares[:items])


def rank_curves(
    curves: Mapping[str, Sequence[float]], *, is_cumulative: bool, width: int = 430, height: int = 290
) -> Markup:
    """One curve per name over the rank of the item (log). `curves` holds shares, largest first.

    Not cumulative: the share of the item at that rank (log). Cumulative: of all items up to it (linear).
    """
    longest = max(len(shares) for shares in curves.values())
    left, right, top, bottom = 58.0, width - 14.0, 12.0, height - 42.0
    x_decades = max(math.ceil(math.log10(max(longest, 2)) - 1e-9), 1)
    x_span = max(math.log10(longest), 0.3) if longest > 1 else 1.0
    lowest = math.floor(math.log10(min(min(shares) for shares in curves.values() if shares)) + 1e-9)
    highest = math.ceil(math.log10(max(shares[0] for shares in curves.values() if shares)) - 1e-9)
    highest = max(highest, lowest + 1)

    def x(rank: int) -> float:
        return left + (right - left) * math.log10(rank) / x_span

    def y(value: float) -> float:
        share = value if is_cumulative else (math.log10(value) - lowest) / (highest - lowest)
        return bottom - (bottom - top) * share

    levels = [i / 4 for i in range(5)] if is_cumulative else [10.0**e for e in range(lowest, highest + 1)]
    parts = [
        line(left, y(v), right, y(v), "grid") + text(left - 7, y(v) + 4, percent(v), "lab soft", "end")
        for v in levels
    ]
    for decade in range(x_decades + 1):
        if decade <= x_span + 1e-9:
            at = x(10**decade)
            parts.append(line(at, top, at, bottom, "grid"))
            parts.append(text(at, bottom + 16, compact(10**decade), "lab soft", "middle"))
    parts.append(text((left + right) / 2, height - 6, "rank of the item", "lab soft", "middle"))
    for i, (name, shares) in enumerate(curves.items()):
        values = list(accumulate(shares)) if is_cumulative else list(shares)
        points = [(x(at + 1), y(values[at])) for at in log_spaced(len(values))]
        parts.append(path(points, f"curve v{i % 2}", tip=name))
    about = "; ".join(
        f"{name}: {len(shares):,} items, the first ten take {percent(share_of_head(shares, 10))}"
        for name, shares in curves.items()
    )
    title = "Cumulative share by rank" if is_cumulative else "Share of each item by rank"
    return picture(join(parts), width=width, height=height, title=title, description=about)


# ------------------------------------------------------------------ models by metric


def model_bars(
    metric: str,
    values: Mapping[str, float | None],
    *,
    highlight: str,
    intervals: Mapping[str, Interval] | None = None,
    width: int = 280,
) -> Markup:
    """One metric: a bar per model from zero, its interval as a whisker; the highlighted model stands out.

    metric: its name, as the title and the tips say it.
    values: by model, at least one, in the order from the top; None, NaN and infinity are "not measured".
    highlight: the model that stands out; none does where it is not among `values`.
    intervals: (low, high) by model, in the unit of the metric; models without one have no whisker.
    width: of the drawing, in its own units.
    """
    intervals = intervals or {}
    known = {m: v for m, v in values.items() if is_number(v)}
    tops = [v for v in known.values() if v is not None] + [intervals[m][1] for m in known if m in intervals]
    largest = max([t for t in tops if math.isfinite(t)] + [1e-12])
    names = [clip(model, 14) for model in values]
    left = 16.0 + CHARACTER_WIDTH * max(len(name) for name in names)
    right, step = width - 52.0, 26
    parts = []
    for row, (model, value) in enumerate(values.items()):
        y = 4.0 + row * step
        is_best = model == highlight
        parts.append(text(left - 8, y + 15, names[row], "lab strong" if is_best else "lab", "end"))
        if model not in known or value is None:
            parts.append(text(left, y + 15, "not measured", "lab soft"))
            continue
        per_unit = (right - left) / largest
        w = max(value, 0.0) * per_unit
        tip = f"{model}: {metric} {value:.4f}"
        parts.append(rect(left, y + 2, max(w, 1.5), 17, "best" if is_best else "other", tip, r=3))
        end = left + w
        if model in intervals and all(math.isfinite(bound) for bound in intervals[model]):
            low, high = (left + max(bound, 0.0) * per_unit for bound in intervals[model])
            parts.append(line(low, y + 10.5, high, y + 10.5, "whisker"))
            parts += [line(at, y + 7, at, y + 14, "whisker") for at in (low, high)]
            end = max(end, high)
        parts.append(text(end + 6, y + 15, readable(value), "lab strong" if is_best else "lab"))
    about = ", ".join(
        f"{m} {readable(v) if v is not None and m in known else 'not measured'}" for m, v in values.items()
    )
    return picture(join(parts), width=width, height=6 + step * len(values), title=metric, description=about)


def is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def readable(value: float) -> str:
    """A metric to three digits: 0.412, 0.0031, 1,234.

    >>> [readable(v) for v in (0.41234, 0.00312, 0, 87.25, 1234.5)]
    ['0.412', '0.0031', '0', '87.2', '1,234']
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if value == 0 or abs(value) >= 1:
        return f"{value:.3g}"
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"


def readable_or_dash(value: float | None) -> str:
    return readable(value) if value is not None and math.isfinite(value) else "–"


# ------------------------------------------------------------------ components of one score


def contribution_scale(lists: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """The longest reach to the left (≤ 0) and to the right (> 0) of zero over some slots, for one scale."""
    lefts = [math.fsum(v for v in parts.values() if is_number(v) and v < 0) for parts in lists]
    rights = [math.fsum(v for v in parts.values() if is_number(v) and v > 0) for parts in lists]
    return min([*lefts, 0.0]), max([*rights, 1e-9])


def contribution_bar(
    parts: Mapping[str, float], *, classes: Mapping[str, str], scale: tuple[float, float], width: int = 150
) -> Markup:
    """One slot's components, stacked: for the item to the right of zero, against it to the left."""
    low, high = scale
    per_unit = (width - 2.0) / (high - low)
    zero = 1.0 - low * per_unit
    drawn, ahead, behind = [], zero, zero
    for name in classes:  # one order of components on the whole page
        value = parts.get(name, 0.0)
        if not is_number(value) or value == 0:
            continue
        w = abs(value) * per_unit
        behind -= w if value < 0 else 0.0
        tip = f"{name}: {value:+.3f}"
        drawn.append(rect(ahead if value > 0 else behind, 1, max(w, 0.8), 10, classes[name], tip, r=0))
        ahead += w if value > 0 else 0.0
    drawn.append(line(zero, 0, zero, 12, "zero"))
    about = (
        ", ".join(f"{name} {value:+.2f}" for name, value in parts.items() if is_number(value))
        or "no components"
    )
    return picture(join(drawn), width=width, height=12, title="What each component gave", description=about)
