"""A Redis that takes its time: hundreds of slots share few connections, and nobody is taken for dead."""

import pytest

from onelane.bootstrap import Services
from onelane.config import Settings
from tests.conftest import accept_all, eventually
from tests.processes import worker_process
from tests.proxy import Proxy
from tests.rows import Rows

SLOTS = 200
DELAY_S = 0.16
"""80 ms each way."""


@pytest.mark.slow
def test_200_slots_behind_a_slow_redis_handle_everything_and_count_no_death(
    rows: Rows, services: Services, settings: Settings
) -> None:
    accept_all(services, [(f"user {nr % SLOTS}", "sleep 0.1") for nr in range(3 * SLOTS)])
    with Proxy(settings.redis_url) as proxy:
        proxy.delay_s = DELAY_S
        slow = settings.model_copy(update={"redis_url": proxy.url, "worker_slots": SLOTS, "quantum_turns": 1})
        with worker_process(slow):
            eventually(lambda: rows.waiting() == 0)
    assert rows.answered() == 3 * SLOTS
    assert rows.ask("SELECT max(deaths) AS most FROM messages").most == 0
