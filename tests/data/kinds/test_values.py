"""Values as they are delivered: each is read as what it says, and what says nothing clear is named."""

from __future__ import annotations

from datetime import datetime

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Clean, fault_of_pattern
from recsys_spark.data.cleaning.clean import cleaned
from recsys_spark.lake.tables import (
    BRONZE_AUDIENCES,
    BRONZE_INTERACTIONS,
    BRONZE_ITEMS,
    BRONZE_OUTCOMES,
    BRONZE_USERS,
)
from tests.data.cleaning.test_clean import GOOD, RULES, bronze
from tests.settings import a_source

WIDE: Clean = RULES.model_copy(update={"max_text_length": 200, "max_id_length": 60})
UNREADABLE = ["unreadable_flag"]
# Ten readings of a flag that must come out the same for a consent and for what is on sale.
FLAGS = {
    **dict.fromkeys(["true", "T", "YES", "y", "1", "1.0", "ja", "J", " Oui\u00a0", "si", "SÍ", "on"], True),
    **dict.fromkeys(["False", "f", "no", "N", "0", "0.0", "Nein", "non", "\toff"], False),
    **dict.fromkeys(["perhaps", "2", "-1", "yess", "1.5", "true,false", "✓"], None),
}


def judged(
    spark: SparkSession, kind: str, rows: list[dict], sources: dict, table=BRONZE_ITEMS
) -> dict[str, dict]:
    """Judged rows by their ids."""
    frame = bronze(spark, rows, table)
    found = cleaned(frame, kind, settings=WIDE, sources=sources).collect()
    name = {"users": "user_id", "items": "item_id", "audiences": "user_id"}.get(kind, "event_id")
    return {row[name]: row.asDict() for row in found}


def test_a_flag_is_one_of_the_words_that_are_stated_and_anything_else_is_quarantined(
    spark: SparkSession,
) -> None:
    columns = {"user_id": "u", "is_consented": "c"}
    sources = {
        "shop": a_source(kind="users", format="csv", path="x", columns=columns),
        # Out of the club means out of the mails: this source's words stand before the usual ones.
        "club": a_source(
            kind="users",
            format="csv",
            path="x",
            columns=columns,
            true_values=["Opted In", "0"],
            false_values=["opted out", "1"],
        ),
    }
    own = {"opted in": True, "OPTED OUT": False, "0": True, "1": False, "yes": True, "out": None}
    missing = dict.fromkeys(["", "  ", "\u00a0", "NULL", "n/a", "\\N", "None"], False)
    rows = [
        {"user_id": f"{source} {word}", "source": source, "is_consented": word}
        for source, words in (("shop", {**FLAGS, **missing}), ("club", own))
        for word in words
    ]
    found = judged(spark, "users", [*rows, {"user_id": "silent"}], sources, BRONZE_USERS)
    assert found.pop("silent")["is_consented"] is False
    expected = {f"shop {word}": value for word, value in {**FLAGS, **missing}.items()}
    expected |= {f"club {word}": value for word, value in own.items()}
    assert {user: row["is_consented"] for user, row in found.items()} == expected
    assert {user for user, row in found.items() if row["reject_reasons"] == UNREADABLE} == {
        user for user, value in expected.items() if value is None
    }
    assert {tuple(row["reject_reasons"]) for row in found.values()} == {(), tuple(UNREADABLE)}


def test_what_is_not_said_to_be_on_sale_is_not_where_the_source_says_it_of_others(
    spark: SparkSession,
) -> None:
    plain = {"item_id": "i"}
    sources = {
        "shop": a_source(
            kind="items", format="csv", path="x", columns={**plain, "is_available": "stock", "title": "t"}
        ),
        "all": a_source(kind="items", format="csv", path="x", columns=plain),
        "fixed": a_source(
            kind="items", format="csv", path="x", columns=plain, constants={"is_available": "ja"}
        ),
    }
    words = {**FLAGS, **dict.fromkeys([None, "", " ", "\u3000", "null", "N/A"], False)}
    rows = [{"item_id": f"shop {word}", "is_available": word} for word in words]
    rows += [{"item_id": "all", "source": "all"}]
    rows += [{"item_id": "fixed", "source": "fixed", "is_available": "ja"}]
    found = judged(spark, "items", rows, sources)
    expected = {f"shop {word}": value for word, value in words.items()} | {"all": True, "fixed": True}
    assert {item: row["is_available"] for item, row in found.items()} == expected
    assert {item: row["reject_reasons"] for item, row in found.items()} == {
        item: UNREADABLE if value is None else [] for item, value in expected.items()
    }


def test_a_word_for_nothing_is_no_id_and_no_text(spark: SparkSession) -> None:
    event = {"user_id": "u", "item_id": "i", "event_at": "t"}
    sources = {
        "shop": a_source(kind="interactions", format="csv", path="x", columns=event),
        "brands": a_source(kind="interactions", format="csv", path="x", columns=event, null_values=["-"]),
    }
    cases = {
        "null": ({"user_id": "null"}, ["missing_user_id"]),
        "None": ({"item_id": "None"}, ["missing_item_id"]),
        "NaN": ({"user_id": "NaN"}, ["missing_user_id"]),
        "N/a": ({"user_id": "N/a"}, ["missing_user_id"]),
        "backslash": ({"item_id": "\\N"}, ["missing_item_id"]),
        "NIL": ({"item_id": "NIL"}, ["missing_item_id"]),
        "no word": ({"user_id": "nullable", "item_id": "NA"}, []),
        "zero": ({"user_id": "0", "item_id": "nilä"}, []),
        "a brand": ({"source": "brands", "user_id": "null", "item_id": "Nil"}, []),
        "a dash": ({"source": "brands", "user_id": "-"}, ["missing_user_id"]),
        "basket": ({"basket_id": "NULL", "cancels_event_id": "none"}, []),
        "quantity": ({"quantity": "null"}, ["bad_quantity"]),
    }
    rows = [{**GOOD, "event_id": f"event {name}", **change} for name, (change, _) in cases.items()]
    found = judged(spark, "interactions", rows, sources, BRONZE_INTERACTIONS)
    found = {event_id.removeprefix("event "): row for event_id, row in found.items()}
    assert {name: row["reject_reasons"] for name, row in found.items()} == {
        name: reasons for name, (_, reasons) in cases.items()
    }
    assert (found["basket"]["basket_id"], found["basket"]["cancels_event_id"]) == (None, None)
    # Events whose id is such a word are no single event: each is known by its content.
    same = [{**GOOD, "event_id": "null", "item_id": item} for item in ("a", "b", "b")]
    assert len(judged(spark, "interactions", same, sources, BRONZE_INTERACTIONS)) == 2
    members = [{"user_id": "u", "audience": "NULL"}, {"user_id": "v", "audience": "spring"}]
    found = judged(spark, "audiences", members, sources, BRONZE_AUDIENCES)
    assert {user: row["reject_reasons"] for user, row in found.items()} == {
        "u": ["missing_audience"],
        "v": [],
    }


def test_texts_are_cleaned_before_they_become_words_and_mails(spark: SparkSession) -> None:
    titles = {
        "Tea": "Tea",
        "\t Green\u00a0\u00a0tea \r\n": "Green tea",
        "Ben &amp; Jerry&#39;s": "Ben & Jerry's",
        "M&uuml;sli &quot;Crunchy&quot; 500&nbsp;g": 'Müsli "Crunchy" 500 g',
        "&#x20AC;5 &euro; &#128512; &#146;": "€5 € 😀 ’",
        "AT&T & Co; &nosuch; &#xD800; &;": "AT&T & Co; &nosuch; &#xD800; &;",
        "&amp;amp; once": "&amp; once",
        "&lt;b&gt;": "<b>",
        "Scho\u00adko\u00adla\u00adde": "Schokolade",
        "pi\u200bzza\ufeff": "pizza",
        "two\u2028lines\x07here": "two lines here",
        "👨\u200d👩\u200d👧 box": "👨\u200d👩\u200d👧 box",
        "&nbsp;&#160; ": None,
        " NULL ": None,
        "n/a": None,
        "Nilgiri": "Nilgiri",
    }
    source = a_source(kind="items", format="csv", path="x", columns={"item_id": "i", "title": "t"})
    rows = [{"item_id": str(n), "title": title} for n, title in enumerate(titles)]
    rows.append({"item_id": "tags", "tags": "hot\u00a0drink\u001f \u001fnull\u001fsalt &amp; sweet\u001f"})
    found = judged(spark, "items", rows, {"shop": source})
    assert found.pop("tags")["tags"] == ["hot drink", "salt & sweet"]
    cleaned_titles = [found[str(n)]["title"] for n in range(len(titles))]
    assert dict(zip(titles, cleaned_titles, strict=True)) == titles
    users = [{"user_id": "u", "country": "New\u00a0\tZealand ", "segment": "none", "region": "NA"}]
    user = judged(spark, "users", users, {"shop": source}, BRONZE_USERS)["u"]
    assert (user["country"], user["segment"], user["region"]) == ("New Zealand", None, "NA")


TIMES = {name: a_source(kind="interactions", format="csv", path="x", time_format=name) for name in
         ("iso", "seconds", "milliseconds")}  # fmt: skip
NOON = datetime(2024, 4, 1, 12)


def test_a_time_has_a_date_and_the_unit_that_its_source_says(spark: SparkSession) -> None:
    seconds = "1711972800"
    cases = {
        "iso": (
            {
                "2024-04-01 12:00": NOON,
                "2024-04-01T14:00:00+02:00": NOON,
                "2024-4-1 12:0:0": NOON,
                " 2024-04-01 12:00 ": NOON,
                "2024-04": datetime(2024, 4, 1),
                "2024": datetime(2024, 1, 1),
            },
            {
                **dict.fromkeys(
                    ["12:30", "T12:30:00", "1:30:00-08:00", "12:3:0-08:00", " 12:30"], "unparsable_time"
                ),
                **dict.fromkeys([seconds, "20240401", "now", "2024-13-01"], "unparsable_time"),
            },
        ),
        "seconds": (
            {seconds: NOON, f"{seconds}.0": NOON, "1.7119728E9": NOON},
            {
                f"{seconds}000": "time_in_milliseconds",
                "631152000000": "time_in_milliseconds",
                f"{seconds}000000": "unparsable_time",
                "12:30": "unparsable_time",
            },
        ),
        "milliseconds": (
            {f"{seconds}000": NOON},
            {
                seconds: "time_in_seconds",
                "631152000": "time_in_seconds",
                f"{seconds}000000": "unparsable_time",
                "": "unparsable_time",
            },
        ),
    }
    rows = [
        {**GOOD, "event_id": f"{source} {text}", "source": source, "event_at": text}
        for source, texts in cases.items()
        for text in (*texts[0], *texts[1])
    ]
    found = judged(spark, "interactions", rows, TIMES, BRONZE_INTERACTIONS)
    expected = {f"{name} {text}": ([], at) for name, (good, _) in cases.items() for text, at in good.items()}
    expected |= {
        f"{name} {text}": ([reason], None) for name, (_, bad) in cases.items() for text, reason in bad.items()
    }
    assert {key: (row["reject_reasons"], row["event_at"]) for key, row in found.items()} == expected
    outcome = {"run_date": "12:30", "channel": "email", "campaign": "c", "outcome_type": "open"}
    sent = {**outcome, "event_id": "o", "user_id": "u", "source": "seconds", "event_at": f"{seconds}000"}
    [row] = judged(spark, "outcomes", [sent], TIMES, BRONZE_OUTCOMES).values()
    assert row["reject_reasons"] == ["missing_run_date", "time_in_milliseconds"]
    item = {"item_id": "i", "released_at": seconds, "valid_from": seconds, "source": "milliseconds"}
    [row] = judged(spark, "items", [item], TIMES).values()
    assert row["reject_reasons"] == ["unparsable_time", "bad_validity"]


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("yyyy-mm-dd", "a day and no month"),
        ("dd.mm.yyyy HH:mm", "a day and no month"),
        ("yyyy-MM-dd HH:MM:ss", "hours and no minutes"),
        ("dd/MM/yyyy HH:MM", "hours and no minutes"),
        ("dd.MM.", "no year"),
        ("HH:mm", "no year"),
        ("yyyy-MM-DD", "DD beside a month"),
        ("yyyy-MM-dd hh:mm", "hours up to 12"),
        *[
            (pattern, "")
            for pattern in (
                "iso",
                "seconds",
                "milliseconds",
                "dd.MM.yyyy HH:mm",
                "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
                "MM/dd/yyyy hh:mm a",
                "yyyyMMdd",
                "yyyy-MM",
                "yyyy",
                "yyyy-DDD",
                "d MMM uuuu",
                "yyyyMMdd HH",
            )
        ],
    ],
)
def test_a_pattern_that_would_read_another_time_is_refused(pattern: str, fault: str) -> None:
    assert fault in fault_of_pattern(pattern)
    assert bool(fault) == bool(fault_of_pattern(pattern))
    if fault:
        with pytest.raises(ValueError, match=fault):
            a_source(kind="users", format="csv", path="x", time_format=pattern)


def test_a_word_is_not_true_and_false() -> None:
    with pytest.raises(ValueError, match="true_values and false_values both have 'x'"):
        a_source(kind="users", format="csv", path="x", true_values=["X"], false_values=[" x", "n"])
