"""`monai-aws query`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.named_queries import named_queries, named_query
from workbench.output import Output
from workbench.query import QueryResult, list_price_usd, query, table_rows
from workbench.unload import unload


class Format(StrEnum):
    """What becomes of the rows."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


def query_command(
    sql: Annotated[
        str | None, typer.Argument(help="SQL in Trino's dialect over series, instances, studies, patients.")
    ] = None,
    env: Env = "local",
    as_json: Json = False,
    named: Annotated[
        str | None, typer.Option("--named", help="Run one of the queries that come with the catalog.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say which these are.")] = False,
    format_: Annotated[
        Format, typer.Option("--format", help="Of the rows; parquet keeps all types.")
    ] = Format.TABLE,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="A file; for parquet a new folder, of whose files Athena makes as many as it likes.",
        ),
    ] = None,
) -> None:
    """Ask the catalog with SQL. Bytes scanned and what they cost are on standard error."""
    output = Output(as_json)
    with reporting(output):
        deployment = deployment_of(env)
        if list_:
            _list(deployment, output)
            return
        statement = _statement(deployment, sql, named)
        if format_ is Format.PARQUET:
            _parquet(deployment, statement, target, output)
            return
        if target is not None and format_ is Format.TABLE and not as_json:
            raise WorkbenchError(
                "A table is for the screen.", advice="For a file choose --format csv, json or parquet."
            )
        result = query(deployment, statement, progress=output.progress)
        _print(result, output, json_wanted=as_json or format_ is Format.JSON, format_=format_, target=target)


def _list(deployment: Deployment, output: Output) -> None:
    found = named_queries(deployment)
    if output.as_json:
        document = [{"name": one.name, "answers": one.answers, "sql": one.sql} for one in found]
        output.result({"queries": document}, [])
    else:
        output.table(["name", "what it answers"], [(one.name, one.answers) for one in found])


def _statement(deployment: Deployment, sql: str | None, named: str | None) -> str:
    if (sql is None) == (named is None):
        raise WorkbenchError(
            "Give either SQL or --named.", advice="monai-aws query --list says which names there are."
        )
    return named_query(deployment, named).sql if named is not None else str(sql)


def _print(
    result: QueryResult, output: Output, *, json_wanted: bool, format_: Format, target: Path | None
) -> None:
    if json_wanted or format_ is Format.CSV:
        text = json.dumps(result.to_json(), indent=2) + "\n" if json_wanted else result.to_csv()
        if target is None:
            print(text, end="")
        else:
            target.write_text(text, encoding="utf-8")
    else:
        output.table([column.name for column in result.columns], table_rows(result))
    _cost(output, f"{len(result.rows)} rows", scanned=result.bytes_scanned, seconds=result.seconds)


def _cost(output: Output, what: str, *, scanned: int, seconds: float) -> None:
    price = f"{list_price_usd(scanned):.5f} USD by the list price of us-east-1"
    output.errors.print(f"{what} in {seconds:.1f} s, {scanned} bytes scanned, {price}", style="dim")


def _parquet(deployment: Deployment, statement: str, target: Path | None, output: Output) -> None:
    if target is None:
        raise WorkbenchError("Parquet needs --output FOLDER.", advice="For example --output build/rows.")
    done = unload(deployment, statement, target, progress=output.progress)
    files = len(done.files)
    line = (
        f"{done.folder} is the table: a folder with {files} Parquet file{'' if files == 1 else 's'}, which "
        "readers of Parquet take as one."
        if files
        else f"No rows, so no files in {done.folder}."
    )
    output.result(done.to_json(), [line])
    _cost(output, f"{files} files", scanned=done.bytes_scanned, seconds=done.seconds)
