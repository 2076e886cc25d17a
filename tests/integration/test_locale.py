"""The service under locales whose encoding is not UTF-8: files, messages and logs are the same there."""

import shutil
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from onelane.deliveries import Delivery
from onelane.dev.target import Target, sign
from onelane.postgres.db import Database
from tests.conftest import eventually
from tests.processes import web_process, worker_process
from tests.rows import Rows

SAID = "你好, été, ノート, 🙂"
LOCALES = {"zh_CN": "GBK", "ja_JP": "EUC-JP"}


def test_the_environments_encoding_and_format_of_dates_for_postgres_do_no_harm(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGDATESTYLE", "German")
    with closing(Database(settings.database_url)) as database:
        row = database.row("SELECT %s::text AS said, timestamptz '2026-11-26Z' AS at", (SAID,))
    assert row is not None
    assert (row.said, row.at) == (SAID, datetime(2026, 11, 26, tzinfo=UTC))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("localedef") is None, reason="there is nothing that makes locales")
@pytest.mark.parametrize("country", LOCALES)
def test_web_and_worker_do_their_work_whatever_the_locales_encoding_is(
    services: Services, settings: Settings, rows: Rows, tmp_path: Path, country: str
) -> None:
    name = f"{country}.{LOCALES[country]}"
    subprocess.run(["localedef", "-c", "-i", country, "-f", LOCALES[country], str(tmp_path / name)], check=True)
    locale: dict[str, Any] = {"LOCPATH": tmp_path, "LC_ALL": name}
    with web_process(settings, tmp_path, **locale) as port, worker_process(settings, **locale):
        target = Target(f"http://127.0.0.1:{port}", "demo", settings.channels["demo"])
        delivery = Delivery(senders=("été",), external_id="m1", text=SAID)
        build_opener(ProxyHandler({})).open(sign(target, delivery)).close()
        eventually(lambda: rows.ask("SELECT count(*) AS n FROM messages WHERE direction = 'out'").n)
    assert rows.ask("SELECT text FROM messages WHERE direction = 'out'").text == SAID
