"""The few SVG parts the report's charts are made of: tags, text, ticks, numbers for people.

Colours are CSS classes of the page, never literals, so that light and dark mode are the page's choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

from recsys_spark.titles import clip

CHARACTER_WIDTH = 6.4  # pixels of an average character at 12 px in a system font


def tag(name: str, content: object = "", /, **attributes: object) -> Markup:
    """One element; `class_` becomes class, `text_anchor` text-anchor; plain strings are escaped."""
    rendered = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _attribute(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{}{}>{}</{}>").format(name, rendered, content, name)


def _attribute(value: object) -> str:
    """Coordinates to a tenth of a pixel: a third of the bytes, and the same picture everywhere."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def picture(content: Markup, *, width: float, height: float, title: str, description: str) -> Markup:
    """The SVG around `content`. Title and description are its first children, for screen readers.

    content: the elements that are drawn.
    width: of the drawing, in its own units; a page shows each as 1.4 pixels at most.
    height: of the drawing, in the same units.
    title: what it shows, cut to 200 characters.
    description: what there is to see, for those who do not; cut to 600 characters.
    """
    label = tag("title", clip(title, 200)) + tag("desc", clip(description, 600))
    return tag(
        "svg",
        label + content,
        viewBox=f"0 0 {_attribute(float(width))} {_attribute(float(height))}",
        role="img",
        aria_label=clip(f"{title}. {description}", 800),
        style=f"max-width:{width * 1.4:.0f}px",  # beyond that the letters would shout
    )


def text(x: float, y: float, words: object, class_: str = "", anchor: str = "start") -> Markup:
    """One line of text.

    x: where it stands, from the left, in units of the drawing.
    y: of its baseline, from the top.
    words: what it says, cut to 200 characters.
    class_: its CSS classes.
    anchor: what of it stands at x: its start, middle or end.
    """
    return tag("text", clip(words, 200), x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def rect(x: float, y: float, w: float, h: float, class_: str, tip: str = "", r: float = 2) -> Markup:
    """A bar; one of negative size is drawn with none.

    x: of its left edge, from the left, in units of the drawing.
    y: of its upper edge, from the top.
    w: its width.
    h: its height.
    class_: its CSS classes.
    tip: what a pointer resting on it reads, cut to 200 characters.
    r: the radius of its corners.
    """
    hover = tag("title", clip(tip, 200)) if tip else ""
    size = {"width": float(max(w, 0.0)), "height": float(max(h, 0.0))}
    return tag("rect", hover, x=float(x), y=float(y), rx=float(r), class_=class_, **size)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line.

    x1: of its first end, from the left, in units of the drawing.
    y1: of its first end, from the top.
    x2: of its other end, from the left.
    y2: of its other end, from the top.
    class_: its CSS classes.
    """
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def path(
    points: Iterable[tuple[float, float]], class_: str, *, closed: bool = False, tip: str = ""
) -> Markup:
    commands = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    hover = tag("title", clip(tip, 200)) if tip else ""
    return tag("path", hover, d=f"M{commands}{'Z' if closed else ''}", class_=class_)


def nice_ticks(largest: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at or just above `largest`, about `count` steps apart.

    >>> nice_ticks(870)
    [0.0, 250.0, 500.0, 750.0, 1000.0]
    """
    if not (largest > 0 and math.isfinite(largest)):
        return [0.0, 1.0]
    rough = largest / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    return [i * step for i in range(math.ceil(largest / step - 1e-9) + 1)]


def compact(value: float) -> str:
    """A count in few characters: 950, 1.2 k, 14 k, 1.43 M.

    >>> [compact(v) for v in (0, 950, 1234, 14_321, 1_428_337, 0.25)]
    ['0', '950', '1.23 k', '14.3 k', '1.43 M', '0.25']
    """
    for unit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit * 0.9995:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> [duration(s) for s in (0.42, 7.3, 61, 492.4, 7_260)]
    ['0.4 s', '7.3 s', '1 min 1 s', '8 min 12 s', '2 h 1 min']
    """
    if not math.isfinite(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(share: float) -> str:
    """A share of 1 as per cent, with enough digits to tell 0.02 % from nothing.

    >>> [percent(s) for s in (0, 0.00021, 0.034, 0.5, 1)]
    ['0 %', '0.021 %', '3.4 %', '50 %', '100 %']
    """
    return f"{100 * share:.3g} %" if share >= 0.9995 else f"{100 * share:.2g} %"
