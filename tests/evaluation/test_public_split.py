"""Published splits: files as papers bring them, and figures as papers define them."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys_spark.cli import app
from recsys_spark.config.load import load_settings
from recsys_spark.errors import ConfigError
from recsys_spark.evaluation.public_split import judge_split
from recsys_spark.evaluation.split_files import Split, read_pairs, read_split

WANTED = [("1", "10"), ("1", "11"), ("2", "10")]


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str | bytes, name: str = "train.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "1 10\n1 11\n2 10\n",
        "1\t10\n1\t11\n2\t10",
        "1,10\r\n1,11\r\n2,10\r\n",
        "1, 10\n\n1, 11\n2, 10\n2, 10\n",
        "user,item\n1,10\n1,11\n2,10\n",
        "\ufeffuser item\n1 10\n1 11\n2 10\n",
        "1 10 11\n2 10\n",
        "1\t10\t11\n2\t10\n3\n",
        "1 10 11 \n2 10 \n",
    ],
    ids=["space", "tab", "comma", "blanks", "header", "mark", "lists", "tab-lists", "trailing"],
)
def test_pairs_and_lists_are_told_apart(file, text):
    assert read_pairs(file(text)) == WANTED


def test_words_over_words_are_a_pair(file):
    assert read_pairs(file("ann tea\nbob tea\n")) == [("ann", "tea"), ("bob", "tea")]
    assert read_pairs(file("007 01\n007 1\n")) == [("007", "01"), ("007", "1")]


def test_further_columns_of_pairs_are_left_alone_when_asked_for(file):
    path = file("1 10 5 881250949\n1 11 3 881250950\n2 10 4 881250951\n")
    assert read_pairs(path, form="pairs") == WANTED


@pytest.mark.parametrize(
    ("text", "form", "sentence"),
    [
        (None, "auto", "no such file"),
        ("", "auto", "is empty"),
        (" \n\n", "auto", "is empty"),
        (b"1 \xff\xfe\n", "auto", "cannot be read as UTF-8 text"),
        (b"1 2\x00\n", "auto", "NUL bytes"),
        ("1 10\n2\n", "pairs", "line 2: got '2', expected `user item`"),
        ("1\n2\n", "lists", "holds no pair"),
        (
            "1 10 5\n1 11 3\n",
            "auto",
            "line 1 has 3 fields, and user '1' has 2 lines. Next: say --format pairs",
        ),
        ("1 10\n1\n", "auto", "line 2 has 1 fields, and user '1' has 2 lines"),
        ("1 10\n", "pair", "expected one of auto, pairs, lists. Did you mean pairs?"),
    ],
)
def test_a_bad_file_is_one_sentence_and_exit_code_2(file, tmp_path, text, form, sentence):
    path = tmp_path / "train.txt" if text is None else file(text)
    good = file("1 12\n", name="test.txt")
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        read_pairs(path, form=form)
    command = ["evaluate", "--env", "demo", "--train", str(path), "--test", str(good), "--format", form]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.output


def test_one_file_alone_and_a_night_without_a_date_are_refused(file):
    for command, sentence in (
        (["--train", str(file("1 10\n"))], "--test is missing"),
        (["--test", str(file("1 10\n"))], "--train is missing"),
        ([], "--run-date is missing"),
        (["--run-date", "2017-12-03", "--split", "leave-last"], "Did you mean leave-last-one?"),
        (["--run-date", "2017-12-03", "--split", "leave-last-one", "--after"], "it has no --split"),
    ):
        done = CliRunner().invoke(app, ["evaluate", "--env", "demo", *command])
        assert (done.exit_code, sentence in done.stderr) == (2, True), done.output


def test_pairs_of_the_test_that_train_holds_are_left_out_and_told(file):
    train, test = file("1 10\n2 11\n"), file("1 10\n1 12\n", name="test.txt")
    assert read_split(train, test) == Split(
        [("1", "10"), ("2", "11")],
        [("1", "12")],
        ("1 pairs of the test are also in train and are left out",),
    )
    with pytest.raises(ConfigError, match="nothing to judge by"):
        read_split(train, train)


def split_of(seed: int) -> Split:
    """60 users of two tastes, 30 items each; a fifth of each user's items is the test."""
    rng = random.Random(seed)
    train, test = [], []
    for user in range(60):
        own = rng.sample([item for item in range(60) if item % 2 == user % 2], 20)
        train += [(f"u{user}", f"i{item}") for item in own[4:]]
        test += [(f"u{user}", f"i{item}") for item in own[:4]]
    return Split(train, [*test, ("stranger", "i1")])


def test_the_figures_are_those_of_the_literature(spark):
    """Popularity in plain Python, with the definitions that LightGCN's and its followers' code use."""
    split = split_of(1)
    als = load_settings("demo").als.model_copy(update={"rank": 4, "iterations": 5, "alpha": 10.0})
    judgement = judge_split(spark, split, als=als, seed=7)
    count: dict[str, int] = {}
    for _, item in split.train:
        count[item] = count.get(item, 0) + 1
    order = sorted(count, key=lambda item: (-count[item], item))
    sums = {"recall@20": 0.0, "recall_capped@20": 0.0, "ndcg@20": 0.0}
    users = {user for user, _ in split.test}
    for user in users:
        had = {item for who, item in split.train if who == user}
        wanted = {item for who, item in split.test if who == user}
        gains = [item in wanted for item in [item for item in order if item not in had][:20]]
        ideal = sum(1 / math.log2(place + 2) for place in range(min(20, len(wanted))))
        sums["recall@20"] += sum(gains) / len(wanted)
        sums["recall_capped@20"] += sum(gains) / min(20, len(wanted))
        sums["ndcg@20"] += sum(gain / math.log2(place + 2) for place, gain in enumerate(gains)) / ideal
    for metric, total in sums.items():
        assert judgement.values["popularity_ever"][metric] == pytest.approx(total / len(users))
    assert (judgement.users, judgement.items, judgement.test_pairs) == (61, 60, 241)
    assert set(judgement.values) >= {"als", "popularity_ever", "item_knn", "user_knn", "svd", "random"}
    assert judgement.values[judgement.best]["ndcg@20"] == max(
        of["ndcg@20"] for of in judgement.values.values()
    )
    assert set(judgement.leads) == {"als", judgement.best}
    for leader, leads in judgement.leads.items():
        assert set(leads) == set(judgement.values) - {leader}
        for model, lead in leads.items():
            apart = judgement.values[leader]["ndcg@20"] - judgement.values[model]["ndcg@20"]
            assert lead.mean == pytest.approx(apart)
            assert lead.low <= lead.mean <= lead.high
    assert judgement.leads["als"]["random"].excludes_zero
    for model in ("als", "item_knn", "user_knn"):  # svd of 60 users by 64 directions only remembers
        # 14 items of a user's taste are new to them and 4 of those are right: 20 places hold them all.
        assert judgement.values[model]["recall@20"] > 0.95


def test_the_command_prints_and_writes_the_figures(spark, file, tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_LAKE", str(tmp_path / "lake"))
    split = split_of(2)
    train = file("\n".join(" ".join(pair) for pair in split.train))
    test = file("\n".join("\t".join(pair) for pair in split.test), name="test.txt")
    out = tmp_path / "figures.json"
    command = ["evaluate", "--env", "demo", "--train", str(train), "--test", str(test), "--json", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "recall@20 (of min(K, n))" in done.stdout
    assert "als leads ndcg@20 by (95 %)" in done.stdout
    assert re.search(r"\w+ leads all \d+ others in NDCG@20; nearest is \w+ by 0\.", done.stdout)
    figures = json.loads(out.read_text())
    assert {"als", "item_knn"} <= set(figures)
    assert set(figures["random"]) >= {"recall@20", "als_leads_ndcg@20", "als_leads_ndcg@20_low"}
