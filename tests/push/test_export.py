"""Lines for machines and cells for people."""

from __future__ import annotations

import csv
import io
import json
import time
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.push.export import csv_cell, csv_line, export_lines, jsonl_line

BATCH = "spark.sql.execution.arrow.maxRecordsPerBatch"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_keys_are_sorted_at_every_depth_whatever_order_they_came_in():
    one = {"rank": 1, "component_scores": {"b": 2.0, "a": 1.0}, "item_id": "ä"}
    two = {"item_id": "ä", "component_scores": {"a": 1.0, "b": 2.0}, "rank": 1}
    assert (
        jsonl_line(one)
        == jsonl_line(two)
        == '{"component_scores":{"a":1.0,"b":2.0},"item_id":"ä","rank":1}\n'
    )


def test_what_json_cannot_say_is_null():
    row = {"a": float("nan"), "b": float("inf"), "c": [np.float32("nan")], "d": Decimal("NaN")}
    assert json.loads(jsonl_line(row)) == {"a": None, "b": None, "c": [None], "d": None}


@pytest.fixture
def elsewhere(monkeypatch):
    """A machine whose clock is not UTC's."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_dates_instants_and_numbers_of_other_kinds_have_one_form(elsewhere):
    plus_two = timezone(timedelta(hours=2))
    row = {
        "date": date(2017, 8, 31),
        "naive": datetime(2017, 8, 31, 1, 2, 3),
        "aware": datetime(2017, 8, 31, 3, 2, 3, tzinfo=plus_two),
        "utc": datetime(2017, 8, 31, 1, 2, 3, tzinfo=UTC),
        "money": Decimal("1.5"),
        "index": np.int64(7),
        "vector": np.array([1.0, 2.0]),
    }
    assert json.loads(jsonl_line(row)) == {
        "date": "2017-08-31",
        "naive": "2017-08-31T01:02:03Z",
        "aware": "2017-08-31T01:02:03Z",
        "utc": "2017-08-31T01:02:03Z",
        "money": 1.5,
        "index": 7,
        "vector": [1.0, 2.0],
    }


def test_a_value_of_an_unknown_kind_is_an_error_and_not_a_guess():
    with pytest.raises(TypeError, match="set"):
        jsonl_line({"a": {1, 2}})


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=5), ANYTHING, max_size=4))
def test_every_row_is_one_line_that_reads_back(row):
    line = jsonl_line(row)
    assert len(line.splitlines()) == 1
    line.encode("utf-8")

    def refuse(constant):
        raise AssertionError(constant)

    assert set(json.loads(line, parse_constant=refuse)) == set(row)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠", " =", "  @"])
def test_text_that_would_start_a_formula_is_guarded(start):
    assert csv_cell(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


def test_plain_text_and_numbers_are_left_alone():
    values = ["tea", "a=b", "", -3.5, -7, Decimal("-0.10"), None, float("nan"), True, date(2017, 8, 31)]
    assert [csv_cell(v) for v in values] == [
        "tea",
        "a=b",
        "",
        "-3.5",
        "-7",
        "-0.10",
        "",
        "",
        "true",
        "2017-08-31",
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_row_reads_back_as_its_cells_and_none_starts_a_formula(values):
    (cells,) = csv.reader(io.StringIO(csv_line(values), newline=""))
    assert cells == [csv_cell(value) for value in values]
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in cells)


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_each_list_is_one_line_in_order_of_campaign_and_user_with_its_slots_by_rank(spark, frame, at_once):
    usual = spark.conf.get(BATCH)
    spark.conf.set(BATCH, "3")
    shared = {"run_date": date(2024, 3, 1), "arm": "hybrid", "model_version": "m", "run_id": "r"}
    rest = {"title": "Tea \u2028", "category": None, "brand": "b", "source": "als", "reason": "why"}
    slots = [
        {**shared, **rest, "channel": "push", "campaign": campaign, "user_id": f"u{user}", "rank": rank}
        | {
            "item_id": f"i{user * rank}",
            "score": 1 / rank if user else float("nan"),
            "propensity": 1.0,
            "component_scores": {},
        }
        for rank in (3, 1, 2)
        for user in range(300)
        for campaign in ("b", "a")
    ]
    schema = (
        "run_date date, channel string, campaign string, user_id string, rank int, item_id string, score double, "
        "component_scores map<string,double>, source string, reason string, arm string, propensity double, "
        "model_version string, run_id string, title string, category string, brand string"
    )
    names = [column.split()[0] for column in schema.split(", ")]
    rows = frame(schema, [tuple(slot[name] for name in names) for slot in slots], 7)
    of_slot = ["rank", "item_id", "title", "category", "brand", "score", "source", "reason", "propensity"]
    of_list = ["run_date", "channel", "campaign", "user_id", "arm", "model_version", "run_id"]
    expected = []
    for campaign, user in sorted({(slot["campaign"], slot["user_id"]) for slot in slots}):
        of = [slot for slot in slots if (slot["campaign"], slot["user_id"]) == (campaign, user)]
        items = [{name: slot[name] for name in of_slot} for slot in sorted(of, key=lambda slot: slot["rank"])]
        line = jsonl_line({**{name: of[0][name] for name in of_list}, "items": items})
        expected.append((campaign, user, "r", line))
    try:
        chunks = list(export_lines(rows, at_once=at_once).toLocalIterator())
        found = [
            (chunk["campaign"], user_id, chunk["run_id"], f"{line}\n")
            for chunk in chunks
            for user_id, line in zip(chunk["user_ids"], chunk["lines"].split("\n")[:-1], strict=True)
        ]
        assert found == expected
        assert (len(chunks) < 10) == (at_once > 1_000), "many lists are one row"
    finally:
        spark.conf.set(BATCH, usual)
