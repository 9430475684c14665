"""Published train and test files: pairs or users' item lists, as they come with papers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from recsys_spark.errors import ConfigError, did_you_mean

FORMATS = ("auto", "pairs", "lists")
_SEPARATOR = re.compile(r"[\s,;]+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")

Fields = tuple[int, list[str]]  # line number, what stands in it


@dataclass(frozen=True)
class Split:
    """Distinct (user, item) pairs to learn from and to be judged by, and sentences for people."""

    train: list[tuple[str, str]]
    test: list[tuple[str, str]]
    notes: tuple[str, ...] = ()


def read_split(train: Path, test: Path, *, form: str = "auto") -> Split:
    """Both files; pairs of the test that are also in train are left out, and told.

    Raises ConfigError for a file that cannot be taken, or where nothing is left to judge by.
    """
    known, wanted = read_pairs(train, form=form), read_pairs(test, form=form)
    before = set(known)
    new = [pair for pair in wanted if pair not in before]
    if not new:
        raise ConfigError(f"{test}: every pair is also in {train}: nothing to judge by.")
    left_out = len(wanted) - len(new)
    notes = (f"{left_out:,} pairs of the test are also in train and are left out",) if left_out else ()
    return Split(known, new, notes)


def read_pairs(path: Path, *, form: str = "auto") -> list[tuple[str, str]]:
    """The distinct (user, item) pairs of a file, in its order.

    pairs: `user item` in each line; what follows (a rating, a time) is not looked at. lists: `user item
    item …`, one line a user. Fields are separated by tabs, spaces, commas or semicolons. auto: pairs where
    no line has more than two fields, lists where some has and no user comes twice. A first line of words
    over numbers is a header.
    """
    if form not in FORMATS:
        raise ConfigError(
            f"--format {form!r}: expected one of {', '.join(FORMATS)}.{did_you_mean(form, FORMATS)}"
        )
    lines = _lines(path)
    chosen = _sniffed(path, lines) if form == "auto" else form
    pairs: dict[tuple[str, str], None] = {}
    for number, fields in lines:
        if chosen == "pairs" and len(fields) < 2:
            raise ConfigError(f"{path}, line {number}: got {fields[0]!r}, expected `user item`.")
        for item in fields[1:2] if chosen == "pairs" else fields[1:]:
            pairs[fields[0], item] = None
    if not pairs:
        raise ConfigError(f"{path} holds no pair of user and item.")
    return list(pairs)


def _lines(path: Path) -> list[Fields]:
    """Number and fields of each line that has any, without a header."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    if "\0" in text:
        raise ConfigError(f"{path} is no text: it holds NUL bytes.")
    split = (
        (number, _SEPARATOR.split(line.strip(" \t\r,;"))) for number, line in enumerate(text.split("\n"), 1)
    )
    lines = [(number, fields) for number, fields in split if fields[0]]
    if not lines:
        raise ConfigError(f"{path} is empty.")
    return lines[1:] if _has_header(lines) else lines


def _has_header(lines: list[Fields]) -> bool:
    """Whether words stand over numbers: no field of the first line is a number, all below it are."""
    rest = lines[1:]
    return (
        bool(rest)
        and not any(_NUMBER.fullmatch(field) for field in lines[0][1])
        and all(_NUMBER.fullmatch(field) for _, fields in rest for field in fields[:2])
    )


def _sniffed(path: Path, lines: list[Fields]) -> str:
    if all(len(fields) == 2 for _, fields in lines):
        return "pairs"
    times = Counter(fields[0] for _, fields in lines)
    repeated = next((fields[0] for _, fields in lines if times[fields[0]] > 1), None)
    if repeated is None:
        return "lists"
    number, fields = next((number, fields) for number, fields in lines if len(fields) != 2)
    raise ConfigError(
        f"{path}: line {number} has {len(fields)} fields, and user {repeated!r} has {times[repeated]} lines. "
        "Next: say --format pairs (the first two fields of each line) or --format lists (one line a user)."
    )
