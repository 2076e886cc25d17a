"""Checks of the schema: it must be the one that this release ships. Functions or indexes may have been changed by hand.

The shipped SQL is run in a scratch schema, which is the whole search path, so that nothing else is changed. The
definitions there are compared with those of the live schema, and all of it is rolled back.
"""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from onelane.doctor.finding import Deployment, Finding, failed, ok, warning
from onelane.model import Value
from onelane.postgres import migrations

SCRATCH_PREFIX = "onelane_doctor_"

# Postgres prints names without the schema when it is the search path; where it does not, `_plain` removes it.
CATALOG = """
SELECT 'function' AS kind, p.proname AS thing, pg_get_function_identity_arguments(p.oid) AS part,
       pg_get_functiondef(p.oid) AS definition
  FROM pg_proc p WHERE p.pronamespace = %(schema)s::regnamespace AND p.prokind IN ('f', 'p')
UNION ALL
SELECT 'view', c.relname, '', pg_get_viewdef(c.oid)
  FROM pg_class c WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('v', 'm')
UNION ALL
SELECT 'column', c.relname, a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attnotnull THEN 'NOT NULL' END, 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid))
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p')
UNION ALL
SELECT 'constraint', c.relname, k.conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
 WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p') AND k.contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL
SELECT 'domain', t.typname, k.conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid WHERE t.typnamespace = %(schema)s::regnamespace
UNION ALL
SELECT 'index', i.relname, '', pg_get_indexdef(x.indexrelid)
       || CASE WHEN x.indisvalid AND x.indisready THEN '' ELSE ' INVALID' END
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
 WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'p')
"""
LIVE_SCHEMA = """
SELECT coalesce((SELECT relnamespace::regnamespace::name FROM pg_class WHERE oid = to_regclass('users')),
                current_schema(), 'public') AS name
"""
MISSING = "is missing"
CODE = frozenset({"function", "view"})
APPLY_AGAIN = "DELETE FROM schema_files WHERE name = '{file}'; then: onelane migrate"
"""A function that a migration makes has no file of its own, and is made by its definition."""


class Difference(Value):
    """One thing that is not as shipped."""

    kind: str
    thing: str
    """A function, view or index, or the table or domain of a column or constraint."""
    part: str
    """A function's arguments, or a column's or constraint's name."""
    problem: str
    """What is wrong with it."""
    expected: str
    """Its shipped definition; empty for what should not be there."""

    @property
    def description(self) -> str:
        """What differs, and how."""
        if self.kind == "function":
            return f"{self.thing} {self.problem}"
        return f"{self.thing}.{self.part} {self.problem}" if self.part else f"{self.thing} {self.problem}"

    @property
    def remedy(self) -> str:
        """The statement or command that repairs it."""
        if not self.expected:
            return f"DROP FUNCTION {self.thing}({self.part})"
        if self.kind in CODE:
            file = f"{self.kind}s/{self.thing}"
            return APPLY_AGAIN.format(file=file) if file in migrations.shipped_code() else self.expected
        is_missing = self.problem == MISSING
        if self.kind == "index":
            return self.expected if is_missing else f"DROP INDEX {self.thing}; {self.expected}"
        if self.kind == "constraint":
            drop = "" if is_missing else f"DROP CONSTRAINT {self.part}, "
            return f"ALTER TABLE {self.thing} {drop}ADD CONSTRAINT {self.part} {self.expected}"
        if self.kind == "domain":
            drop = "" if is_missing else f"ALTER DOMAIN {self.thing} DROP CONSTRAINT {self.part}; "
            return f"{drop}ALTER DOMAIN {self.thing} ADD CONSTRAINT {self.part} {self.expected}"
        return f"{'add' if is_missing else 'make'} the column {self.thing}.{self.part} {self.expected}"


def migrations_are_current(deployment: Deployment) -> Finding:
    """Check that no file is left to apply, and that this release knows every file that was applied."""
    if pending := migrations.pending(deployment.database):
        return failed(f"{len(pending)} files to apply: {', '.join(pending[:5])}", "run `onelane migrate`")
    applied = {
        row.name for row in deployment.database.rows("SELECT name FROM schema_files WHERE name LIKE 'migrations/%'")
    }
    shipped = {f"{path.parent.name}/{path.stem}" for path in migrations.SQL.glob("migrations/*.sql")}
    if unknown := sorted(applied - shipped):
        return warning(
            f"the database is newer than this release: {', '.join(unknown[:5])}",
            "run the doctor of the release that is deployed; after a rollback this is expected",
        )
    return ok(f"all {len(shipped)} applied, and the functions with them")


def functions_match(deployment: Deployment) -> Finding:
    """Check that functions and views are those shipped, and that no others have their names."""
    return _judge(deployment, "functions and views", code=True)


def tables_match(deployment: Deployment) -> Finding:
    """Check that columns, constraints and indexes are those shipped; further ones may exist."""
    return _judge(deployment, "columns, constraints and indexes", code=False)


def _judge(deployment: Deployment, nouns: str, *, code: bool) -> Finding:
    try:
        found = compare(deployment)
    except psycopg.errors.InsufficientPrivilege:
        return warning(
            f"the {nouns} cannot be compared: this role may not create a schema",
            "GRANT CREATE ON DATABASE … TO this role (the doctor's schema is rolled back)",
        )
    differences = [one for one in found.differences if (one.kind in CODE) is code]
    if not differences:
        return ok(f"{found.compared_code if code else found.compared_tables} {nouns} as shipped")
    if len(differences) == 1:
        return failed(differences[0].description, differences[0].remedy)
    return failed(
        f"{differences[0].description}, and {len(differences) - 1} more",
        f"{differences[0].remedy}; then run the doctor again",
        tuple(one.description for one in differences),
    )


class Comparison(Value):
    """How much was compared, and the differences."""

    compared_code: int
    compared_tables: int
    differences: tuple[Difference, ...]


def compare(deployment: Deployment) -> Comparison:
    """Compare the live schema with what the shipped SQL makes of an empty one."""
    with deployment.database.transaction() as connection, connection.transaction(force_rollback=True):
        live = _catalog(connection, _live_schema(connection))
        shipped = _shipped_catalog(connection)
    return Comparison(
        compared_code=sum(kind in CODE for kind, _, _ in shipped),
        compared_tables=sum(kind not in CODE for kind, _, _ in shipped),
        differences=tuple(_differences(live, shipped)),
    )


Catalog = dict[tuple[str, str, str], str]


def _live_schema(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(LIVE_SCHEMA).fetchone()
    return str(row.name) if row else "public"


def _shipped_catalog(connection: psycopg.Connection[Any]) -> Catalog:
    scratch_schema = SCRATCH_PREFIX + uuid4().hex
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(scratch_schema)))
    _move_to(connection, scratch_schema)
    _build(connection)
    return _catalog(connection, scratch_schema)


def _move_to(connection: psycopg.Connection[Any], schema: str) -> None:
    connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))


def _build(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SET LOCAL check_function_bodies = off")
    for path in sorted((migrations.SQL / "migrations").glob("*.sql")):
        connection.execute(path.read_bytes(), prepare=False)
    for text in migrations.shipped_code().values():
        connection.execute(text.encode(), prepare=False)


def _catalog(connection: psycopg.Connection[Any], schema: str) -> Catalog:
    _move_to(connection, schema)
    rows = connection.execute(CATALOG, {"schema": schema}).fetchall()
    return {(row.kind, row.thing, row.part): _plain(row.definition, schema) for row in rows}


def _plain(definition: str, schema: str) -> str:
    """Remove the schema's name, and white space, which differ from one database to the next."""
    unqualified = definition.replace(f'"{schema}".', "").replace(f"{schema}.", "")
    return "\n".join(line.rstrip() for line in unqualified.strip().splitlines())


def _differences(live: Catalog, shipped: Catalog) -> Iterator[Difference]:
    for key, expected in shipped.items():
        if live.get(key) != expected:
            yield _difference(key, "is not the shipped one" if key in live else MISSING, expected)
    names = {name for kind, name, _ in shipped if kind == "function"}
    for key in sorted(live.keys() - shipped.keys()):
        if key[0] == "function" and key[1] in names:
            yield _difference(key, f"exists a second time, as {key[1]}({key[2]})", "")


def _difference(key: tuple[str, str, str], problem: str, expected: str) -> Difference:
    return Difference(kind=key[0], thing=key[1], part=key[2], problem=problem, expected=expected)
