"""A table of a real PostgreSQL server, started here: read in partitions, each content once."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.config.sections import Source
from recsys_spark.data.sources import Delivery, Known, new_deliveries
from recsys_spark.errors import ConfigError, InputError
from tests.settings import a_source

PASSWORD = "s3cret of the test"
TABLE = """
create table orders (id bigint, shopper text, sku text, at timestamp, paid numeric);
insert into orders select n, 'u' || n % 7, 'i' || n % 5, timestamp '2024-04-01 10:00:00' + n * interval '1 minute',
  case n when 3 then 'NaN'::numeric else n * 1.5 end from generate_series(0, 99) n;
"""


def _binaries() -> Path | None:
    found = [Path(folder) for folder in sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))]
    on_path = shutil.which("initdb")
    return next(
        (folder for folder in found if (folder / "initdb").exists()),
        Path(on_path).parent if on_path else None,
    )


@pytest.fixture(scope="module")
def database() -> Iterator[Callable[[str], str]]:
    """`run(sql)` on a server of its own: in a temporary folder, on a free port, by a user without privileges."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    user = getpass.getuser()
    if os.geteuid() == 0:
        user = next(
            (name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}),
            "",
        )
    as_user = {"user": user} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="recsys-postgres-"))
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    if as_user:
        shutil.chown(folder, user)
        shutil.chown(secret, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "shop", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"],
        check=True, capture_output=True, cwd=folder, **as_user,
    )  # fmt: skip
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c", "fsync=off", "-h", "127.0.0.1"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user,
    )  # fmt: skip

    def run(sql: str) -> str:
        command = [
            binaries / "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-U",
            "shop",
            "-v",
            "ON_ERROR_STOP=1",
        ]
        done = subprocess.run(
            [*command, "-c", sql, "postgres"],
            env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    try:
        for _ in range(100):
            try:
                run("select 1")
                break
            except subprocess.CalledProcessError:
                time.sleep(0.1)
        run(TABLE)
        run.url = f"jdbc:postgresql://127.0.0.1:{port}/postgres"  # type: ignore[attr-defined]
        yield run
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def orders(database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setenv("SHOP_PASSWORD", PASSWORD)
    monkeypatch.setenv("SHOP_USER", "shop")
    return a_source(
        kind="interactions",
        format="jdbc",
        url=database.url,  # type: ignore[attr-defined]
        table="orders",
        user_env="SHOP_USER",
        password_env="SHOP_PASSWORD",
        partition_column="id",
        lower=0,
        upper=100,
        num_partitions=4,
        columns={"event_id": "id", "user_id": "shopper", "item_id": "sku", "event_at": "at", "value": "paid"},
        constants={"event_type": "purchase"},
    )


def taken(spark: SparkSession, source: Source, known: Known) -> Delivery:
    return new_deliveries(spark, {"orders": source}, places={"orders": ""}, known={"orders": known})["orders"]


def test_each_partition_of_a_table_is_taken_once_and_again_when_its_rows_changed(
    spark: SparkSession, database: Callable[[str], str], orders: Source
) -> None:
    first = taken(spark, orders, Known())
    assert first.rows is not None
    rows = {row["event_id"]: row for row in first.rows.collect()}
    assert sorted(map(int, rows)) == list(range(100))
    assert (rows["3"]["value"], rows["4"]["value"], rows["4"]["user_id"]) == ("NaN", "6.0", "u4")
    assert rows["4"]["event_at"] == "2024-04-01 10:04:00"
    assert len({(row["source_file"], row["row"]) for row in rows.values()}) == 100
    assert sorted(part.size for part in first.files) == [25, 25, 25, 25]
    before = Known({part.uri: {part.content_hash: part.modified_ms} for part in first.files}, first.columns)
    # The same rows, laid down in another order.
    database(
        "create table copy as select * from orders order by id desc; drop table orders; alter table copy rename to orders"
    )
    assert taken(spark, orders, before).rows is None
    database("update orders set paid = 7 where id = 30; insert into orders values (100, 'u', 'i', now(), 1)")
    again = taken(spark, orders, before)
    assert again.rows is not None
    assert [part.name for part in again.files] == ["orders#1", "orders#3"]
    assert again.notes == ("orders#1, orders#3 delivered again with other content",)
    assert again.rows.count() == 51
    database("update orders set paid = id * 1.5 where id = 30; delete from orders where id = 100")
    changed = {part.uri: {part.content_hash: part.modified_ms} for part in again.files}
    both = {uri: {**keys, **changed.get(uri, {})} for uri, keys in before.contents.items()}
    back = taken(spark, orders, Known(both, first.columns))
    assert back.rows is not None
    assert back.notes == ("orders#1, orders#3 delivered again with content that it had before",)
    first_keys = {part.name: part.content_hash for part in first.files}
    assert [part.content_hash for part in back.files] == [
        f"{first_keys[part]}#2" for part in ("orders#1", "orders#3")
    ]
    assert back.rows.count() == 50


def test_numbers_of_a_database_are_ids_where_they_are_whole(spark: SparkSession, orders: Source) -> None:
    query = "(select *, case when id = 2 then 12.5 else 13813.00 end s, id::float8 u from orders where id < 4) as t"
    columns = {**orders.columns, "item_id": "s", "user_id": "u"}
    found = taken(spark, orders.model_copy(update={"table": query, "columns": columns}), Known())
    assert found.rows is not None
    rows = {
        row["event_id"]: (row["user_id"], row["item_id"], row["malformed"]) for row in found.rows.collect()
    }
    told = "item_id: 12.5 is no whole number that it holds exactly"
    good = {f"{n}": (f"{n}", "13813", None) for n in (0, 1, 3)}
    assert rows == {**good, "2": ("2", None, told)}


def test_credentials_come_from_the_environment_and_are_in_no_sentence(
    spark: SparkSession, orders: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "wrong secret")
    with pytest.raises(InputError, match="password authentication failed") as refused:
        taken(spark, orders, Known())
    assert "wrong secret" not in str(refused.value)
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(ConfigError, match="needs the environment variable SHOP_PASSWORD"):
        taken(spark, orders, Known())


@pytest.mark.parametrize(
    "url", ["jdbc:postgresql://h/d?user=u&password=hush", "jdbc:postgresql://u:hush@h/d"]
)
def test_a_literal_password_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url holds credentials"):
        a_source(kind="users", format="jdbc", url=url, table="t", columns={"user_id": "u"})
