"""The files that bots send by their bytes: kept just before the turn is committed whose replies name them."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from pydantic import Base64Bytes, TypeAdapter, ValidationError

from onelane.bot.reply import UPLOADS_MAX_BYTES
from onelane.errors import BadResult, StoreUnavailable
from onelane.model import JsonObject, TurnRead
from onelane.postgres.db import Database
from onelane.postgres.faults import refusal, sqlstate_of
from onelane.problems import first_problem

GIVEN: Final = TypeAdapter(dict[UUID, Base64Bytes])
KEEP: Final = """
INSERT INTO reply_files (id, user_id, turn_seq, data)
SELECT id, %(user_id)s, %(seq)s, data FROM unnest(%(ids)s::uuid[], %(data)s::bytea[]) file (id, data)
ON CONFLICT (id) DO NOTHING
"""


class Uploads:
    """Keeps what a turn uploads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, turn: TurnRead, rows: Sequence[JsonObject], given: Any) -> None:
        """Keep the bytes that rows of replies are sent with, out of all that are `given`, in base64 and by id.

        Raise BadResult for bytes that are not there or that Postgres refuses, StoreUnavailable while it is away.
        """
        named = {UUID(one["file"]) for row in rows if "failure" not in row for one in _files(row)}
        if not named:
            return
        uploads = _decoded(given)
        if named - uploads.keys():
            raise BadResult("a reply names a file whose bytes are not there: give it as an Upload")
        if sum(map(len, uploads.values())) > UPLOADS_MAX_BYTES:
            raise BadResult(f"the files of a turn may have {UPLOADS_MAX_BYTES} bytes: send some by address")
        kept = {"ids": list(named), "data": [uploads[one] for one in named]}
        try:
            self._database.rows(KEEP, {"user_id": turn.user.id, "seq": turn.message.seq, **kept})
        except psycopg.Error as error:
            if isinstance(refused := refusal(sqlstate_of(error)), StoreUnavailable):
                raise refused from error
            raise BadResult(f"Postgres refuses a file that the handler returned (SQLSTATE {error.sqlstate})") from error


def _files(row: JsonObject) -> list[JsonObject]:
    return [one for one in row.get("attachments", []) if "file" in one]


def _decoded(given: Any) -> dict[UUID, bytes]:
    try:
        return GIVEN.validate_python(given)
    except ValidationError as error:
        raise BadResult(f"uploads.{first_problem(error)}") from None
