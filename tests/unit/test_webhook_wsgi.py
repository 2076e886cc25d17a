import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"DATABASE_URL": "postgresql://127.0.0.1:9/none", "REDIS_URL": "redis://127.0.0.1:9"}
GUNICORN = ["-m", "gunicorn", "--bind=127.0.0.1:0", "--log-level=error", "onelane_web.wsgi:app"]
IMPORT = ["-c", "import onelane_web.wsgi"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "settings", "named"),
    [
        (GUNICORN, {}, "DATABASE_URL"),
        (IMPORT, {}, "DATABASE_URL"),
        (IMPORT, {**GOOD, "CHANNELS": "{"}, "CHANNELS"),
        (
            IMPORT,
            {**GOOD, "CHANNELS": '{"demo": {"provider": "standard", "secrets": ["whsec_"]}}'},
            "CHANNELS.demo.secrets.0",
        ),
    ],
    ids=["gunicorn", "missing", "no json", "secret"],
)
def test_an_impossible_setting_ends_the_server_with_one_line(
    how: list[str], settings: dict[str, str], named: str
) -> None:
    environment = {"PATH": os.environ["PATH"], **settings}
    ended = subprocess.run(
        [sys.executable, *how], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    ours = [line for line in ended.stderr.splitlines() if line.startswith("onelane: ")]
    assert ended.returncode == 4
    assert len(ours) == 1
    assert ours[0].startswith(f"onelane: {named}: ")
    assert "Traceback" not in ended.stderr
