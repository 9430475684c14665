"""The pictures of a night's report. Each function: plain numbers in, one SVG out.

A chart takes the width of its own coordinate system; the page shows a wide and a narrow drawing of the
same data and lets a media query choose, so letters stay legible on a telephone. No chart is called with
nothing to draw: the page writes a sentence instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate

from markupsafe import Markup

from recsys_spark.evaluation.report.svg import (
    CHARACTER_WIDTH,
    compact,
    duration,
    join,
    line,
    nice_ticks,
    path,
    percent,
    picture,
    rect,
    text,
)
from recsys_spark.titles import clip

NARROW = 520  # below this width labels stand above their bars instead of beside them
KNOWN_COMPONENTS = ("als", "content", "history", "popularity", "neighbours", "explore")
COLOURS = 8
MONTHS_FROM = 92  # days on an axis beyond which it names months


def colour_classes(names: Sequence[str]) -> dict[str, str]:
    """A colour for each component, the same on every night for those we know."""
    known = [name for name in KNOWN_COMPONENTS if name in names]
    others = sorted(set(names) - set(known))
    return {name: f"c{KNOWN_COMPONENTS.index(name)}" for name in known} | {
        name: f"c{(len(KNOWN_COMPONENTS) + i) % COLOURS}" for i, name in enumerate(others)
    }


# ------------------------------------------------------------------ the night's stages


@dataclass(frozen=True)
class TimelineBar:
    """One stage of the night, `seconds` long; `note` is what went in and out."""

    name: str
    seconds: float
    note: str
    class_: str


def timeline(bars: Sequence[TimelineBar], *, total_seconds: float, width: int) -> Markup:
    """Stages one after the other from left to right; the time between them is left at the end."""
    is_narrow, step = width < NARROW, 46 if width < NARROW else 30
    left = 8.0 if is_narrow else 118.0
    right = width - (12.0 if is_narrow else 165.0)
    total = max(total_seconds, math.fsum(bar.seconds for bar in bars), 1e-9)
    per_second, bottom = (right - left) / total, 8.0 + step * len(bars)
    parts = [_time_axis(total, left=left, per_second=per_second, bottom=bottom)]
    started = 0.0
    for row, bar in enumerate(bars):
        x, y = left + started * per_second, 8.0 + row * step
        parts.append(_stage(bar, x=x, y=y, w=bar.seconds * per_second, width=width))
        started += bar.seconds
    slowest = max(bars, key=lambda bar: bar.seconds)
    longest = f"the longest, {slowest.name}, took {duration(slowest.seconds)}"
    about = f"{len(bars)} stages in {duration(total)}; {longest}"
    return picture(
        join(parts), width=width, height=bottom + 24, title="The stages of the night", description=about
    )


def _stage(bar: TimelineBar, *, x: float, y: float, w: float, width: int) -> Markup:
    tip = f"{bar.name}: {duration(bar.seconds)}"
    if width < NARROW:
        head = text(8, y + 13, bar.name, "lab strong")
        time = text(width - 12, y + 13, duration(bar.seconds), "lab", "end")
        return head + time + rect(x, y + 20, max(w, 2.5), 14, bar.class_, tip, r=3)
    took = duration(bar.seconds)
    room = len(took) * CHARACTER_WIDTH + 10
    # The label stands behind its bar, before it where the notes begin, and inside when it fills the row.
    if x + w + room < width - 105:
        label = text(x + max(w, 2.5) + 7, y + 17, took, "lab")
    elif x - room > 118:
        label = text(x - 7, y + 17, took, "lab", "end")
    else:
        label = text(x + 8, y + 17, took, "on-bar")
    note = text(width - 2, y + 17, bar.note, "lab soft", "end")
    return (
        text(108, y + 17, bar.name, "lab strong", "end")
        + rect(x, y + 3, max(w, 2.5), 20, bar.class_, tip, r=4)
        + label
        + note
    )


def _time_axis(total: float, *, left: float, per_second: float, bottom: float) -> Markup:
    in_minutes = total > 150
    unit, name = (60.0, "min") if in_minutes else (1.0, "s")
    ticks = [t for t in nice_ticks(total / unit, 5) if t * unit <= total * 1.001]
    marks = []
    for tick in ticks:
        x = left + tick * unit * per_second
        marks.append(line(x, 4, x, bottom, "grid"))
        marks.append(text(x, bottom + 16, f"{tick:g} {name}", "lab soft", "middle" if tick else "start"))
    return join(marks)


# ------------------------------------------------------------------ from rows to lists


@dataclass(frozen=True)
class FunnelBar:
    name: str
    rows: float
    note: str
    is_loss: bool


def funnel(bars: Sequence[FunnelBar], *, width: int) -> Markup:
    """What became of the rows, step by step; a loss hangs where it was taken off."""
    is_narrow, step = width < NARROW, 48 if width < NARROW else 34
    left, right = (6.0, width - 6.0) if is_narrow else (190.0, width - 230.0)
    largest = max([bar.rows for bar in bars] + [1.0])
    per_row = (right - left) / largest
    parts: list[Markup] = []
    for row, (bar, start) in enumerate(zip(bars, funnel_starts(bars), strict=True)):
        y = 4.0 + row * step + (18 if is_narrow else 0)
        x, w = left + start * per_row, max(bar.rows * per_row, 2.0 if bar.rows else 0.0)
        class_ = "loss" if bar.is_loss else f"kept k{min(row, 5)}"
        tip = f"{bar.name}: {bar.rows:,.0f} ({percent(bar.rows / largest)} of the largest step)"
        share = percent(bar.rows / largest)
        parts.append(rect(left, y, right - left, 20, "track", r=4))
        parts.append(rect(x, y, w, 20, class_, tip, r=4))
        parts.append(_funnel_labels(bar, share, y=y, width=width))
    described = "; ".join(f"{bar.name} {bar.rows:,.0f}" for bar in bars)
    height = 4 + step * len(bars)
    return picture(join(parts), width=width, height=height, title="From rows to lists", description=described)


def _funnel_labels(bar: FunnelBar, share: str, *, y: float, width: int) -> Markup:
    weight = "lab soft" if bar.is_loss else "lab strong"
    if width < NARROW:
        return text(6, y - 5, clip(bar.name, 32), weight) + text(
            width - 6, y - 5, f"{bar.rows:,.0f} · {share}", weight, "end"
        )
    note = text(width - 150, y + 14, clip(bar.note, 26), "lab soft") if bar.note else Markup("")
    return (
        text(180, y + 14, clip(bar.name, 28), weight, "end")
        + text(width - 162, y + 14, f"{bar.rows:,.0f}", weight, "end")
        + (note or text(width - 150, y + 14, share, "lab soft"))
    )


def funnel_starts(bars: Sequence[FunnelBar]) -> list[float]:
    """Where each bar begins, in rows. Losses stack beside what was kept, so that the whole adds up.

    `raw 10, good 8, duplicates 1, rejected 1` begin at 0, 0, 8, 9: the last three together span the first.
    """
    starts, cursor, whole, is_beside = [], 0.0, 0.0, True
    for last, bar in zip([None, *bars], bars, strict=False):
        if not bar.is_loss:
            starts.append(0.0)
            cursor, whole = bar.rows, max(whole, bar.rows)
            continue
        if last is None or not last.is_loss:  # losses listed before what remains come off from the right
            is_beside = cursor + bar.rows <= whole
        starts.append(cursor if is_beside else max(cursor - bar.rows, 0.0))
        cursor += bar.rows if is_beside else -bar.rows
    return starts


# ------------------------------------------------------------------ events over time

Days = Sequence[tuple[date, Mapping[str, float]]]


def every_day(days: Days, kinds: Sequence[str]) -> tuple[date, int, list[list[float]]]:
    """First date, days per point, and per kind one count a point. Absent days count zero, kinds not
    named are summed into the last; beyond two years a point is a week.
    """
    first, last = min(day for day, _ in days), max(day for day, _ in days)
    length = (last - first).days + 1
    per_point = 7 if length > 731 else 1
    if per_point > 1 and length >= 14:
        length -= length % per_point  # a part of a week would look like a collapse
    points = math.ceil(length / per_point)
    counts = [[0.0] * points for _ in kinds]
    for day, by_kind in days:
        at = (day - first).days // per_point
        if at < points:
            for kind, count in by_kind.items():
                counts[kinds.index(kind) if kind in kinds else -1][at] += count
    return first, per_point, counts


def event_kinds(days: Days, most: int = 5) -> list[str]:
    """The kinds of event, the commonest first; what is beyond `most` goes by the name of `other`."""
    totals: dict[str, float] = {}
    for _, by_kind in days:
        for kind, count in by_kind.items():
            totals[kind] = totals.get(kind, 0.0) + count
    ordered = sorted(totals, key=lambda kind: (-totals[kind], kind))
    return ordered if len(ordered) <= most else [*ordered[: most - 1], "other"]


def stacked_area(days: Days, *, width: int, height: int = 250) -> Markup:
    """Events per day, the commonest kind at the bottom."""
    kinds = event_kinds(days)
    first, per_point, counts = every_day(days, kinds)
    layers = [
        [0.0] * len(counts[0]),
        *accumulate(counts, lambda a, b: [x + y for x, y in zip(a, b, strict=True)]),
    ]
    ticks = nice_ticks(max(layers[-1]), 4)
    left, right, top, bottom = 46.0, width - 8.0, 10.0, height - 26.0
    points = len(layers[0])
    xs = [left + (right - left) * (i / (points - 1) if points > 1 else 0.5) for i in range(points)]

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / ticks[-1]

    parts = [
        line(left, y(t), right, y(t), "grid") + text(left - 7, y(t) + 4, compact(t), "lab soft", "end")
        for t in ticks
    ]
    for i, kind in enumerate(kinds):
        upper = [(x, y(v)) for x, v in zip(xs, layers[i + 1], strict=True)]
        lower = [(x, y(v)) for x, v in zip(xs, layers[i], strict=True)]
        if points == 1:  # a single day is a bar, a path of no width would not be seen
            upper, lower = (
                [(left, upper[0][1]), (right, upper[0][1])],
                [(left, lower[0][1]), (right, lower[0][1])],
            )
        total = math.fsum(counts[i])
        parts.append(path(upper + lower[::-1], f"area c{i}", closed=True, tip=f"{kind}: {total:,.0f} in all"))
    parts += _date_marks(first, points * per_point, left=left, right=right, y=bottom + 17, width=width)
    per = "week" if per_point == 7 else "day"
    about = "; ".join(f"{kind} {math.fsum(c):,.0f}" for kind, c in zip(kinds, counts, strict=True))
    described = f"From {first} on, {points * per_point} days: {about}"
    return picture(join(parts), width=width, height=height, title=f"Events per {per}", description=described)


def _date_marks(first: date, days: int, *, left: float, right: float, y: float, width: int) -> list[Markup]:
    per_day = (right - left) / max(days - 1, 1)
    marks = []
    for day in marked_days(first, days, most=4 if width < NARROW else 8):
        x = left + (day - first).days * per_day if days > 1 else (left + right) / 2
        anchor = "start" if x < left + 20 < right - 20 else "end" if x > right - 20 else "middle"
        style = "%d %b" if days <= MONTHS_FROM else "%b ’%y"
        marks.append(text(x, y, f"{day:{style}}".lstrip("0"), "lab soft", anchor))
    return marks


def marked_days(first: date, days: int, *, most: int) -> list[date]:
    """The dates an axis names: evenly spaced days, or first days of months when there are many."""
    if days <= MONTHS_FROM:
        count = min(days, most)
        steps = [round(i * (days - 1) / max(count - 1, 1)) for i in range(count)]
        return [first + timedelta(days=step) for step in steps]
    last = first + timedelta(days=days - 1)
    months = [date(m // 12, m % 12 + 1, 1) for m in range(_month(first), _month(last) + 1)]
    inside = [month for month in months if month >= first]
    return inside[:: math.ceil(len(inside) / most)]


def _month(day: date) -> int:
    return day.year * 12 + day.month - 1
