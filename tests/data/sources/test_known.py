"""Which contents are new, whatever name they have and however often they came before."""

from __future__ import annotations

import pytest

from recsys_spark.data.sources import Known, SourceFile


def file(place: str, content: str, at: int) -> SourceFile:
    return SourceFile(place, f"file:///{place}", 1, at, content)


Nights = list[list[SourceFile]]

STORIES: dict[str, tuple[Nights, list[list[str]]]] = {
    "a content is taken once": ([[file("x", "A", 1)]] * 2, [["A"], []]),
    "a copy is the same content": (
        [[file("x", "A", 1)], [file("x", "A", 1), file("y", "A", 2)]],
        [["A"], []],
    ),
    "of two copies one is taken": ([[file("y", "A", 1), file("x", "A", 2)]], [["A"]]),
    "touched again it is the same": ([[file("x", "A", 1)], [file("x", "A", 2)]], [["A"], []]),
    "another content is new": ([[file("x", "A", 1)], [file("x", "B", 2)]], [["A"], ["B"]]),
    "what comes back is the latest again, each time once": (
        [[file("x", "ABAAB"[n], n + 1)] for n in (0, 1, 2, 2, 3, 4)],
        [["A"], ["B"], ["A#2"], [], [], ["B#2"]],
    ),
    "a third time it has a third key": (
        [[file("x", content, n)] for n, content in enumerate("ABABA")],
        [["A"], ["B"], ["A#2"], ["B#2"], ["A#3"]],
    ),
    "restored with its old time it is not the latest": (
        [[file("x", "A", 1)], [file("x", "B", 2)], [file("x", "A", 1)]],
        [["A"], ["B"], []],
    ),
    "a log that is renamed every night comes once": (
        [
            [file("log", "A", 1)],
            [file("log", "B", 2), file("log.1", "A", 1)],
            [file("log", "C", 3), file("log.1", "B", 2), file("log.2", "A", 1)],
            [file("log", "D", 4), file("log.1", "C", 3), file("log.2", "B", 2)],
        ],
        [["A"], ["B"], ["C"], ["D"]],
    ),
    "it may come back from where it was copied to": (
        [
            [file("x", "A", 1)],
            [file("y", "B", 1)],
            [file("y", "A", 2)],
            [file("x", "B", 3), file("y", "A", 3)],
        ],
        [["A"], ["B"], ["A#2"], ["B#2"]],
    ),
}


DAY = 86_400_000
# Of a source whose deliveries are all there is: what comes on another day is that day's.
SNAPSHOTS: dict[str, tuple[Nights, list[list[str]]]] = {
    "a catalogue that is as it was two days ago": (
        [[file("1", "A", 1)], [file("1", "A", 1), file("2", "B", DAY)], [file("3", "A", 2 * DAY)]],
        [["A"], ["B"], ["A#2"]],
    ),
    "the same all at once": (
        [[file("1", "A", 1), file("2", "B", DAY), file("3", "A", 2 * DAY)]] * 2,
        [["A", "B", "A#2"], []],
    ),
    "on one day it is one": ([[file("1", "A", 1), file("2", "A", 2)], [file("1", "A", 3)]], [["A"], []]),
    "an earlier one may come late": (
        [[file("2", "A", 2 * DAY)], [file("1", "A", DAY)], [file("1", "A", DAY)]],
        [["A"], ["A#2"], []],
    ),
    "back again within a day": (
        [[file("x", "A", 1)], [file("x", "B", 2)], [file("x", "A", 3)]],
        [["A"], ["B"], ["A#2"]],
    ),
}


@pytest.mark.parametrize("story", [*STORIES, *SNAPSHOTS])
def test_a_content_is_new_once_and_again_where_another_was_delivered_in_between(story: str) -> None:
    nights, expected = {**STORIES, **SNAPSHOTS}[story]
    contents: dict[str, dict[str, int]] = {}
    found = []
    for night in nights:
        taken = Known(contents, is_snapshot=story in SNAPSHOTS).new(night)
        for one in taken:
            contents.setdefault(one.uri.replace("///", "/"), {})[one.content_hash] = one.modified_ms
        found.append([one.content_hash for one in taken])
    assert found == expected
