"""`monai-aws query`: queries by name, files, and what is said of the cost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cloud_under_test import REPOSITORY
from typer.testing import CliRunner
from workbench_fakes import OUTPUTS, FakePaginator, deployment

from workbench import main, query_command
from workbench.errors import WorkbenchError
from workbench.named_queries import named_queries, named_query
from workbench.query import QueryResult
from workbench.unload import unload


class FakeAthena:
    """A workgroup with more saved queries than one call returns, of which each statement succeeds."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.statements: list[str] = []

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "list_named_queries"
        ids = [str(number) for number in range(len(self.names))]
        return FakePaginator(lambda **_: [{"NamedQueryIds": ids[:40]}, {"NamedQueryIds": ids[40:]}])

    def batch_get_named_query(self, *, NamedQueryIds: list[str]) -> dict[str, Any]:
        assert len(NamedQueryIds) <= 50
        return {
            "NamedQueries": [
                {"Name": self.names[int(one)], "Description": "d", "QueryString": f"SELECT {one}"}
                for one in NamedQueryIds
            ]
        }

    def start_query_execution(self, **request: Any) -> dict[str, Any]:
        self.statements.append(request["QueryString"])
        return {"QueryExecutionId": "q1"}

    def get_query_execution(self, **_: Any) -> dict[str, Any]:
        return {
            "QueryExecution": {"Status": {"State": "SUCCEEDED"}, "Statistics": {"DataScannedInBytes": 4096}}
        }


class FakeResults:
    """A bucket with two files of a result."""

    def get_paginator(self, name: str) -> FakePaginator:
        assert name == "list_objects_v2"
        return FakePaginator(
            lambda Bucket, Prefix: [
                {"Contents": [{"Key": f"{Prefix}a"}]},
                {"Contents": [{"Key": f"{Prefix}b"}]},
            ]
        )

    def download_file(self, bucket: str, key: str, path: str) -> None:
        Path(path).write_text(key)


def result(bytes_scanned: int) -> QueryResult:
    return QueryResult(
        execution_id="q", sql="", columns=(), rows=(), bytes_scanned=bytes_scanned, seconds=1.0
    )


def test_a_named_query_is_found_however_its_name_is_spelt() -> None:
    athena = FakeAthena([f"query {number}" for number in range(60)] + ["missing slices"])
    there = deployment(athena=athena)
    assert len(named_queries(there)) == 61
    for name in ("missing slices", "missing_slices", "Missing-Slices"):
        assert named_query(there, name).sql == "SELECT 60"
    with pytest.raises(WorkbenchError) as caught:
        named_query(there, "nope")
    assert "missing slices" in caught.value.advice


def test_cost_is_the_list_price_with_its_minimum() -> None:
    assert result(0).list_price_usd == pytest.approx(0.00005)
    assert result(10**12).list_price_usd == pytest.approx(5)


def test_parquet_takes_all_files_of_the_result_into_a_folder_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OUTPUTS["catalog"], "CatalogBucketName", "catalog")
    athena = FakeAthena([])
    there = deployment(athena=athena, s3=FakeResults())
    done = unload(there, "SELECT * FROM series -- all of them", tmp_path / "rows")
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["a.parquet", "b.parquet"]
    assert sorted(done.files) == sorted((tmp_path / "rows").iterdir())
    # Rows of patients.
    assert (tmp_path / "rows").stat().st_mode & 0o077 == 0
    assert athena.statements[0].startswith(
        "UNLOAD (SELECT * FROM series -- all of them\n) TO 's3://catalog/query-results/"
    )
    with pytest.raises(WorkbenchError, match="not an empty folder"):
        unload(there, "SELECT 1", tmp_path / "rows")
    with pytest.raises(WorkbenchError, match="is the name of a file"):
        unload(there, "SELECT 1", tmp_path / "rows.parquet")
    assert len(athena.statements) == 1


def test_a_download_that_was_broken_off_leaves_nothing_that_looks_like_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeResults):
        def download_file(self, bucket: str, key: str, path: str) -> None:
            super().download_file(bucket, key, path)
            if key.endswith("b"):
                raise KeyboardInterrupt

    monkeypatch.setitem(OUTPUTS["catalog"], "CatalogBucketName", "catalog")
    with pytest.raises(KeyboardInterrupt):
        unload(deployment(athena=FakeAthena([]), s3=Broken()), "SELECT 1", tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_parquet_tells_bytes_and_cost_and_what_the_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OUTPUTS["catalog"], "CatalogBucketName", "catalog")
    there = deployment(athena=FakeAthena([]), s3=FakeResults())
    monkeypatch.setattr(query_command, "deployment_of", lambda _: there)
    command = ["query", "SELECT 1", "--format", "parquet", "--output"]
    done = CliRunner().invoke(main.app, [*command, str(tmp_path / "rows")])
    assert done.exit_code == 0
    assert "is the table: a folder with 2 Parquet files" in done.stdout
    assert "4096 bytes scanned, 0.00005 USD" in " ".join(done.stderr.split())
    done = CliRunner().invoke(main.app, [*command, str(tmp_path / "again"), "--json"])
    document = json.loads(done.stdout)
    assert (document["bytesScanned"], document["listPriceUsd"]) == (4096, 0.00005)
    assert document["folder"] == str(tmp_path / "again")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either SQL or --named"),
        (["SELECT 1", "--named", "scanners"], "either SQL or --named"),
        (["SELECT 1", "--format", "parquet"], "--output FOLDER"),
        (["SELECT 1", "--output", "rows.txt"], "for the screen"),
    ],
)
def test_what_makes_no_sense_is_said_before_athena_is_asked(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    athena = FakeAthena([])
    monkeypatch.setattr(query_command, "deployment_of", lambda _: deployment(athena=athena))
    done = CliRunner().invoke(main.app, ["query", *arguments])
    assert done.exit_code == 1
    assert said in done.output
    assert athena.statements == []


def test_json_tells_bytes_and_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(query_command, "deployment_of", lambda _: deployment())
    monkeypatch.setattr(query_command, "query", lambda *_, **__: result(2 * 10**12))
    file = tmp_path / "rows.json"
    done = CliRunner().invoke(main.app, ["query", "SELECT 1", "--format", "json", "--output", str(file)])
    assert done.exit_code == 0
    assert json.loads(file.read_text())["listPriceUsd"] == 10


def test_the_document_lists_the_queries_that_come_with_the_catalog() -> None:
    text = (REPOSITORY / "docs" / "catalog.md").read_text(encoding="utf-8")
    section = text.partition("## Named queries")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| ([a-z ]+) \| (.+) \|$", section, re.MULTILINE))
    told.pop("name")
    there = {
        path.stem.replace("_", " "): path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("-- ")
        for path in (REPOSITORY / "infra" / "catalog" / "queries").glob("*.sql")
    }
    assert told == there
