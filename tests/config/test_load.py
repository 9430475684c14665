"""Settings: complete, frozen, and clear about what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys_spark.config.load import load_settings, resolve_path
from recsys_spark.errors import ConfigError
from tests.conftest import ROOT

EVENTS = "[sources.web]\nkind='interactions'\nformat='csv'\n"


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "base.toml").write_text(
        (ROOT / "conf" / "base.toml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    monkeypatch.setenv("RECSYS_CONF", str(tmp_path))
    return tmp_path


def settings_of(conf: Path, overlay: str):
    (conf / "mine.toml").write_text(overlay, encoding="utf-8")
    return load_settings("mine")


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [
        (
            "[als]\nrnk = 5",
            "mine.toml sets keys base.toml does not have: ['als.rnk']. Did you mean als.rank?",
        ),
        ("[asl]\nrank = 5", "['asl']. Did you mean als?"),
        ("[als]\nrank = 'many'", "als.rank: Input should be a valid integer"),
        ("[als]\nrank = 0", "als.rank: Input should be greater than 0, got 0"),
        ("[blend]\nnew_items_only = { asl = 1.0 }", "names 'asl'. Did you mean als?"),
        ("[als\n", "mine.toml is not valid TOML"),
        ("[preferences.ratings]\nneutral = 5.0", "needs min <= neutral < max, got min = 0.5, neutral = 5"),
        ("[preferences]\nnegative = { dislike = 'hide' }", "negative.dislike: Input should be 'exclude' or"),
        ("[preferences]\nevent_weights = { view = -1.0 }", "should be greater than or equal to 0, got -1.0"),
        (
            "[campaigns.a]\nchannel='email'\nk=3\nrepeat_alowed=true",
            "campaigns.a.repeat_allowed: Field required",
        ),
        (
            f"{EVENTS}path='x'\nsnapshot = true",
            "snapshot belongs to items, users and audiences, not to 'inter",
        ),
        (
            f"{EVENTS}path='x'\nsame_events_as='tils'\n[sources.tills]\nkind='interactions'\nformat='csv'\npath='y'",
            (
                "sources.web.same_events_as is 'tils', expected another source of kind 'interactions' that has events of "
                "its own: tills. Did you mean tills?"
            ),
        ),
        (f"{EVENTS}path='x'\nsame_events_as='web'", "events of its own: there is none."),
        (
            "[sources.a]\nkind='items'\nformat='csv'\npath='x'\nsame_events_as='b'",
            "and outcomes, not to 'items'",
        ),
        (
            (
                "[sources.a]\nkind='items'\nformat='jdbc'\nurl='jdbc:x'\ntable='t'\nsnapshot=true\nnum_partitions=2\n"
                "partition_column='n'\nlower=1\nupper=9"
            ),
            "snapshot needs num_partitions = 1: unchanged partitions are not delivered again",
        ),
        ("[lake]\npath = '${RECSYS_NOT_SET}/x'", "mine.toml needs the environment variable RECSYS_NOT_SET"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(conf: Path, overlay: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        settings_of(conf, overlay)


def test_an_unknown_environment_lists_the_known_ones(conf: Path) -> None:
    (conf / "demo.toml").write_text("")
    with pytest.raises(ConfigError, match=r"no environment 'dmo' in .*: have demo\. Did you mean demo\?"):
        load_settings("dmo")


def test_weights_of_an_overlay_replace_those_of_base_as_a_whole(conf: Path) -> None:
    settings = settings_of(conf, "[blend]\nnew_items_only = { content = 2.0 }")
    weights = settings.blend.fixed("new_items_only")
    assert weights == {"als": 0.0, "content": 2.0, "history": 0.0, "popularity": 0.0, "trial": 0.0}
    assert settings.blend.fixed("repeats_allowed")["history"] == 1.0


def test_what_speaks_against_an_item_replaces_that_of_base_as_a_whole(conf: Path) -> None:
    overlay = "[preferences]\nnegative = { thumbs_down = 'lower' }\n[bots]\nmax_events_per_day = 50"
    settings = settings_of(conf, overlay)
    assert settings.preferences.negative == {"thumbs_down": "lower"}
    assert (settings.bots.max_events_per_day, settings.bots.min_events) == (50, 1000)


def test_places_change_no_fingerprint_and_models_do(conf: Path) -> None:
    plain = settings_of(conf, "").fingerprint()
    assert settings_of(conf, "[lake]\npath = '/elsewhere'").fingerprint() == plain
    assert settings_of(conf, "[als]\nrank = 63").fingerprint() != plain


def test_variables_are_filled_in_with_their_defaults(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = "[lake]\npath = '${RECSYS_A:-/one}/${RECSYS_B:-two}'"
    assert settings_of(conf, overlay).lake.path == "/one/two"
    monkeypatch.setenv("RECSYS_A", "/other")
    assert settings_of(conf, overlay).lake.path == "/other/two"


def test_relative_paths_start_at_home_and_uris_stay(conf: Path) -> None:
    settings = settings_of(conf, "")
    assert resolve_path(settings, "x/y") == f"{conf.parent}/x/y"
    assert resolve_path(settings, "s3a://bucket/x") == "s3a://bucket/x"
    with pytest.raises(ConfigError, match="no_such_package"):
        resolve_path(settings, "package:no_such_package/x")


@pytest.mark.parametrize("env", ["demo", "movielens", "movietweetings"])
def test_the_environments_of_the_project_are_valid(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSYS_CONF", raising=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("RECSYS_DATA", "/data")
    assert load_settings(env).campaigns
