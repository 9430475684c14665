"""Models by their behaviour."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from math import log

import pytest
from pydantic import ValidationError

from recsys_spark.config.sections import Content
from recsys_spark.errors import InputError
from recsys_spark.models.content import fit_content
from recsys_spark.models.popularity import popularity
from tests.conftest import Frame
from tests.settings import with_defaults

WORDS = with_defaults(Content, fields=["title", "tags"], ngram=2, min_items=2, max_terms=100)
ITEMS = "item_id string, title string, category string, brand string, tags array<string>"


def test_tf_idf_is_that_of_its_formula_on_words_and_pairs_of_words(frame: Frame) -> None:
    rows = [
        ("a", "Green TEA", "c", "b", ["hot"]),
        ("b", "green tea", "c", "b", []),
        ("c", "Grüner Tee", "c", "b", ["hot"]),
        ("d", None, None, None, None),
    ]
    model = fit_content(frame(ITEMS, rows), WORDS)
    terms = {row["term_index"]: (row["term"], row["idf"]) for row in model.terms.collect()}
    assert [terms[n][0] for n in range(len(terms))] == ["green", "green tea", "hot", "tea"]
    assert {round(idf, 12) for _, idf in terms.values()} == {round(log(5 / 3), 12)}
    vectors = {
        row["item_id"]: {terms[t][0]: w for t, w in zip(row["terms"], row["weights"], strict=True)}
        for row in model.vectors.collect()
    }
    assert vectors["a"] == pytest.approx(dict.fromkeys(["green", "green tea", "hot", "tea"], 0.5))
    assert vectors["b"] == pytest.approx(dict.fromkeys(["green", "green tea", "tea"], 3**-0.5))
    assert vectors["c"] == {"hot": 1.0}
    assert vectors["d"] == {}


def test_a_word_keeps_its_marks_and_is_the_same_composed_or_not(frame: Frame) -> None:
    hindi, decomposed = "हिन्दी किताब", "Cafe\u0301 ve\u0301lo"
    rows = [("a", hindi, "", "", []), ("b", hindi, "", "", []), ("c", decomposed, "", "", [])]
    rows += [
        ("d", "CAFÉ vélo", "", "", []),
        ("e", "x\u0323y x\u0331z", "", "", []),
        ("f", "x\u0331z", "", "", []),
    ]
    words = WORDS.model_copy(update={"ngram": 1})
    terms = {row["term"] for row in fit_content(frame(ITEMS, rows), words).terms.collect()}
    assert terms == {"हिन्दी", "किताब", "café", "vélo", "x\u0331z"}


def test_stop_words_are_those_of_the_configured_languages_and_the_shops_own(frame: Frame) -> None:
    rows = [(item, "The tea und der Honig Pack", "", "", []) for item in "ab"]
    for changed, expected in (
        ({}, {"tea", "und", "der", "honig", "pack"}),
        ({"stop_words": ["german"], "more_stop_words": ["Pack"]}, {"the", "tea", "honig"}),
        ({"stop_words": []}, {"the", "tea", "und", "der", "honig", "pack"}),
    ):
        words = with_defaults(Content, **{**WORDS.model_dump(), "ngram": 1, **changed})
        assert {row["term"] for row in fit_content(frame(ITEMS, rows), words).terms.collect()} == expected
    with pytest.raises(ValidationError, match="stop_words"):
        with_defaults(Content, **{**WORDS.model_dump(), "stop_words": ["englsh"]})


def test_items_without_a_shared_word_are_refused(frame: Frame) -> None:
    with pytest.raises(InputError, match="no word is shared by 2 items"):
        fit_content(frame(ITEMS, [("a", "one", "", "", []), ("b", "two", "", "", [])]), WORDS)


def test_popularity_counts_users_and_first_tries_in_the_window_only(frame: Frame) -> None:
    day = date(2024, 6, 2)

    def event(user: str, item: str, days_ago: int) -> tuple:
        at = datetime(2024, 6, 2, 12) - timedelta(days=days_ago)
        return (user, item, at, at.date())

    rows = [
        event("u1", "old", 40),
        event("u1", "staple", 40),
        event("u1", "staple", 1),
        event("u1", "staple", 0),
        event("u2", "staple", 27),
        event("u3", "staple", 28),
        event("u1", "ancient", 90),
        event("u1", "future", -1),
    ]
    schema = "user_id string, item_id string, event_at timestamp, event_date date"
    found = popularity(frame(schema, rows), run_date=day, window_days=28, reference_days=60).collect()
    assert {row["item_id"]: (row["users"], row["new_users"], row["is_reference"]) for row in found} == {
        "old": (0, 0, True),
        "staple": (2, 1, True),
        "ancient": (0, 0, False),
    }
