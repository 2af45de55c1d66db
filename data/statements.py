"""What SQLite and PostgreSQL say differently: inserting what is new, and asking for thousands of values at once.

Values that are asked for go as one parameter, an array or JSON: writing out thousands costs most of a statement's time,
and hits limits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from sqlalchemy import BigInteger, ColumnElement, Connection, Table, any_, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from data.tables import Base

VALUES_TOGETHER = 600  # in one statement of SQLite, 25 decisions' worth; versions before 3.32 take 999


def table_of(entity: type[Base]) -> Table:
    return Base.metadata.tables[entity.__tablename__]


def insert_new(connection: Connection, entity: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose keys are not there yet; each row names the same columns."""
    if rows:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        connection.execute(dialect.insert(table_of(entity)).on_conflict_do_nothing(), list(rows))


def insert_plain(connection: Connection, entity: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """The same in a third of the time, without defaults: each row names every column that has no NULL.

    On SQLite a statement takes many rows: it lets go of the interpreter's lock for each statement, and a busy thread
    would take it. They are as many each time, for the connection keeps every statement it saw, and what it was given.
    """
    if not rows:
        return
    dialect, table, names = connection.dialect, table_of(entity), list(rows[0])
    types = [table.columns[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names]
    columns = [
        [row[name] for row in rows] if bind is None else [bind(row[name]) for row in rows]
        for name, bind in zip(names, types, strict=True)
    ]
    filled = list(zip(*columns, strict=True))
    is_sqlite = dialect.name == "sqlite"
    into = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES"
    one = f"({', '.join(['?' if is_sqlite else '%s'] * len(names))})"
    unless = "ON CONFLICT DO NOTHING"
    n_together = max(VALUES_TOGETHER // len(names), 1)
    many = f"{into} {', '.join([one] * n_together)} {unless}"
    n_begun = len(filled) // n_together * n_together if is_sqlite else 0
    for start in range(0, n_begun, n_together):
        some = filled[start : start + n_together]
        connection.exec_driver_sql(many, tuple(chain.from_iterable(some)))
    if n_begun < len(filled):
        connection.exec_driver_sql(f"{into} {one} {unless}", filled[n_begun:])


def among(connection: Connection, column: Any, values: Sequence[Any]) -> ColumnElement[bool]:
    """`column IN values`."""
    if connection.dialect.name == "sqlite":
        return cast(ColumnElement[bool], column.in_(select(func.json_each(json.dumps(values)).table_valued("value"))))
    return cast(ColumnElement[bool], column == any_(literal(list(values), postgresql.ARRAY(column.type))))


@dataclass(frozen=True)
class PairColumns:
    """The two columns of a table of pairs of ids, to join with."""

    first: ColumnElement[int]
    second: ColumnElement[int]


def pairs_table(connection: Connection, pairs: Sequence[tuple[int, int]]) -> PairColumns:
    """Pairs of ids as a table."""
    if connection.dialect.name == "sqlite":
        row = func.json_each(json.dumps(pairs)).table_valued("value").c.value
        return PairColumns(func.json_extract(row, "$[0]"), func.json_extract(row, "$[1]"))
    ids = postgresql.ARRAY(BigInteger)
    sides = [literal([pair[side] for pair in pairs], ids) for side in (0, 1)]
    table = func.unnest(*sides).table_valued("first", "second").render_derived()
    return PairColumns(table.c.first, table.c.second)
