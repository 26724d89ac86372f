"""The statements that the local Athena runs, taken apart. Everything else is refused by name.

Source: https://docs.aws.amazon.com/athena/latest/ug/ddl-sql-reference.html (SELECT, INSERT INTO, DELETE,
UPDATE, OPTIMIZE, VACUUM, UNLOAD).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlglot
import sqlglot.errors
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.tokens import Token, TokenType

from local.athena.dialect import QueryError

_DIALECT = "athena"
_LITERALS = (TokenType.STRING, TokenType.NUMBER)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A table that a statement changes; "" for the database of the context. Names in lower case."""

    database: str
    table: str


@dataclass(frozen=True, kw_only=True)
class Select:
    query: exp.Query


@dataclass(frozen=True, kw_only=True)
class Insert:
    target: Target
    columns: tuple[str, ...]
    """In the statement's order and in lower case; empty for all of the table."""
    query: exp.Query


@dataclass(frozen=True, kw_only=True)
class Delete:
    target: Target
    name: str
    """How the condition calls the table."""
    condition: exp.Expression | None


@dataclass(frozen=True, kw_only=True)
class Update:
    target: Target
    name: str
    condition: exp.Expression | None
    assignments: dict[str, exp.Expression] = field(default_factory=dict)
    """By the column's name in lower case."""


@dataclass(frozen=True, kw_only=True)
class Optimize:
    target: Target
    condition: exp.Expression | None


@dataclass(frozen=True, kw_only=True)
class Vacuum:
    target: Target


@dataclass(frozen=True, kw_only=True)
class Unload:
    query: exp.Query
    location: str
    options: dict[str, str | tuple[str, ...]]
    """By name in lower case."""


Statement = Select | Insert | Delete | Update | Optimize | Vacuum | Unload


def parse(sql: str) -> Statement:
    """The one statement in a text. Raises `QueryError` for any other text."""
    special = _special(sql)
    if special is not None:
        return special
    try:
        found = [one for one in sqlglot.parse(sql, read=_DIALECT) if one is not None]
    except sqlglot.errors.SqlglotError as error:
        raise _syntax(str(error).splitlines()[0]) from error
    if len(found) != 1:
        raise _syntax(f"expected one statement, found {len(found)}")
    return _of(found[0])


def _of(node: exp.Expression) -> Statement:
    if isinstance(node, exp.Query):
        return Select(query=node)
    if isinstance(node, exp.Insert) and not node.args.get("overwrite"):
        return _insert(node)
    if isinstance(node, exp.Delete | exp.Update) and isinstance(node.this, exp.Table):
        where = node.args.get("where")
        condition = where.this if where is not None else None
        target, name = _target(node.this), node.this.alias_or_name
        if isinstance(node, exp.Delete):
            return Delete(target=target, name=name, condition=condition)
        assignments = {
            assignment.this.name.lower(): assignment.expression for assignment in node.args["expressions"]
        }
        return Update(target=target, name=name, condition=condition, assignments=assignments)
    raise QueryError(f"NOT_SUPPORTED: the local Athena does not run {node.key.upper()} statements")


def _insert(node: exp.Insert) -> Insert:
    into, columns = node.this, ()
    if isinstance(into, exp.Schema):
        columns = tuple(column.name.lower() for column in into.expressions)
        into = into.this
    body = node.expression
    if isinstance(body, exp.Values):
        body = exp.select("*").from_(exp.alias_(body, "given", table=True))
    if not isinstance(into, exp.Table) or not isinstance(body, exp.Query):
        raise _syntax("INSERT INTO takes a table and a query")
    if node.args.get("with_") is not None:
        body = body.copy()
        body.set("with_", node.args["with_"].copy())
    return Insert(target=_target(into), columns=columns, query=body)


def _target(table: exp.Table) -> Target:
    return Target(database=table.db.lower(), table=table.name.lower())


def _special(sql: str) -> Statement | None:
    """OPTIMIZE, VACUUM and UNLOAD, which sqlglot does not know."""
    try:
        tokens = Dialect.get_or_raise(_DIALECT).tokenize(sql)
    except sqlglot.errors.SqlglotError as error:
        raise _syntax(str(error).splitlines()[0]) from error
    first = tokens[0].text.upper() if tokens else ""
    if first not in ("OPTIMIZE", "VACUUM", "UNLOAD"):
        return None
    # sqlglot reads what follows these words as one string.
    rest = sql[tokens[0].end + 1 :].strip().removesuffix(";").rstrip()
    words = Dialect.get_or_raise(_DIALECT).tokenize(rest)
    if first == "UNLOAD":
        return _unload(rest, words)
    count = _name_length(words)
    target = _named(rest, words[:count])
    if first == "VACUUM":
        if count != len(words):
            raise _syntax("VACUUM takes a table and nothing else")
        return Vacuum(target=target)
    order = [token.text.upper() for token in words[count : count + 4]]
    if order != ["REWRITE", "DATA", "USING", "BIN_PACK"]:
        raise _syntax("expected OPTIMIZE table REWRITE DATA USING BIN_PACK")
    after = words[count + 4 :]
    if not after:
        return Optimize(target=target, condition=None)
    if after[0].token_type != TokenType.WHERE or len(after) == 1:
        raise _syntax("expected WHERE and a condition after BIN_PACK")
    return Optimize(target=target, condition=_expression(rest[after[0].end + 1 :]))


def _unload(rest: str, words: Sequence[Token]) -> Unload:
    depth, closed = 0, None
    for place, token in enumerate(words):
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        if depth == 0:
            closed = place
            break
    if closed is None or closed == 0:
        raise _syntax("expected UNLOAD (query) TO 's3://...' WITH (...)")
    query = _query(rest[words[0].end + 1 : words[closed].start])
    after = words[closed + 1 :]
    if len(after) < 4 or after[0].text.upper() != "TO" or after[1].token_type != TokenType.STRING:
        raise _syntax("expected TO 's3://...' WITH (...) after the query of UNLOAD")
    if after[2].text.upper() != "WITH":
        raise _syntax("UNLOAD needs WITH (format = ...)")
    return Unload(query=query, location=after[1].text, options=_options(after[3:]))


def _options(words: Sequence[Token]) -> dict[str, str | tuple[str, ...]]:
    """`(name = 'value', name = ARRAY['a', 'b'])`."""
    if len(words) < 2 or (words[0].text, words[-1].text) != ("(", ")"):
        raise _syntax("expected (option = value, ...) after WITH")
    options: dict[str, str | tuple[str, ...]] = {}
    rest = list(words[1:-1])
    while rest:
        end, depth = 0, 0
        while end < len(rest) and (depth or rest[end].text != ","):
            depth += (rest[end].text == "[") - (rest[end].text == "]")
            end += 1
        name, values = rest[0], [one.text for one in rest[2:end] if one.token_type in _LITERALS]
        if end < 3 or rest[1].text != "=" or not values:
            raise _syntax("an option is name = 'value' or name = ARRAY['value', ...]")
        listed = rest[2].text.upper() == "ARRAY"
        options[name.text.lower()] = tuple(values) if listed else values[0]
        rest = rest[end + 1 :]
    return options


def _name_length(words: Sequence[Token]) -> int:
    """How many tokens the (dotted) name at the beginning has."""
    count = 1
    while count + 1 < len(words) and words[count].token_type == TokenType.DOT:
        count += 2
    return min(count, len(words))


def _named(text: str, words: Sequence[Token]) -> Target:
    if not words:
        raise _syntax("expected the name of a table")
    parsed = _query(f"SELECT 1 FROM {text[: words[-1].end + 1]}")  # noqa: S608 - it is parsed, not run
    table = parsed.find(exp.Table)
    if table is None:
        raise _syntax("expected the name of a table")
    return _target(table)


def _query(text: str) -> exp.Query:
    try:
        parsed = sqlglot.parse_one(text, read=_DIALECT)
    except sqlglot.errors.SqlglotError as error:
        raise _syntax(str(error).splitlines()[0]) from error
    if not isinstance(parsed, exp.Query):
        raise _syntax("expected a query")
    return parsed


def _expression(text: str) -> exp.Expression:
    try:
        return sqlglot.parse_one(text, read=_DIALECT)
    except sqlglot.errors.SqlglotError as error:
        raise _syntax(str(error).splitlines()[0]) from error


def _syntax(message: str) -> QueryError:
    return QueryError(f"SYNTAX_ERROR: {message}")
