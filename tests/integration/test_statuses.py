"""What providers say became of replies, in any order: each reply moves upwards, and settles what held its lane."""

from datetime import UTC, datetime, timedelta
from itertools import count, permutations
from threading import Thread
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onelane.bootstrap import Services, open_services
from onelane.channels import provider_of
from onelane.config import Channel, Settings
from onelane.deliveries import Status
from onelane.inbox.statuses import Statuses
from onelane.postgres.connection import Row
from tests.by_hand import ByHand
from tests.calls import Calls, Item, lease, sent
from tests.conftest import SECRET, eventually, examples_of
from tests.rows import Rows

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
STATES = ("sent", "delivered", "read", "failed")


class Replied:
    """A user who got replies, and what is known of them."""

    def __init__(self, services: Services, *texts: str) -> None:
        self.user = ByHand(services.database)
        self.user.say()
        self.user.turn(replies=[{"text": text} for text in texts or ("hello",)])
        self.calls, self.rows, self._database = Calls(services.database), Rows(services.database), services.database

    @property
    def id(self) -> UUID:
        """The first reply's."""
        reply_id: UUID = self.rows.replies(self.user.user_id)[0].id
        return reply_id

    def read(self) -> Row:
        """Read the first reply."""
        return self.rows.replies(self.user.user_id)[0]

    def begin(self, fence: int = 1, **how: Any) -> Item:
        """Begin to send what is first."""
        [begun] = self.calls.begin_sends(lease(self.user.user_id, fence, **how))
        return begun

    def settle(self, begun: Item, outcome: str = "accepted", fence: int = 1, **how: Any) -> str:
        """Settle it; return the reply's state."""
        [settled] = self.calls.settle_sends(sent(begun, outcome, fence, **how))
        return str(settled["state"])

    def send(self, provider_id: str = "p1") -> None:
        """Send it."""
        assert self.settle(self.begin(), provider_id=provider_id) == "sent"

    def hear(self, *statuses: Item) -> list[Item]:
        """Let the provider say something, all at once."""
        return self.calls._call("note_statuses", tuple({"channel": "demo", **one} for one in statuses), waits=True)

    def waits(self) -> list[str]:
        """Return the states of what waits in the outbox."""
        return [row.state for row in self._database.rows("SELECT state FROM outbox ORDER BY turn_seq, ordinal")]


def status(state: str, provider_id: str = "p1", **what: Any) -> Item:
    return {"provider_id": provider_id, "state": state, **what}


@pytest.fixture
def replied(services: Services) -> Replied:
    return Replied(services)


@pytest.fixture
def statuses(services: Services) -> Statuses:
    sends = provider_of(Channel(provider="standard", secrets=(SECRET,), reply_url="https://replies.example"))
    return Statuses(services.database, {"demo": sends}, services.out_lanes, services.failures)


NOTED_S = 20.0
NAMES = count()
SAID = ("state", "delivered_at", "read_at", "failed_at", "failure", "failure_code", "duplicated_at")


@given(
    said=st.lists(
        st.tuples(st.sampled_from(STATES), st.sampled_from(["", "anna", "ben"]), st.integers(0, 3)),
        min_size=1,
        max_size=6,
        unique_by=lambda one: one[:2],
    ),
    shuffled=st.randoms(use_true_random=False),
)
@examples_of(30, hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None))
def test_any_order_of_what_is_said_ends_in_the_same_row(
    services: Services, said: list[tuple[str, str, int]], shuffled: Any
) -> None:
    items = [
        status(state, participant=who or None, at=(NOON + timedelta(seconds=at)).isoformat(), failure_code=state)
        for state, who, at in said
    ]
    ends = []
    for order in (items, shuffled.sample(items, len(items)), shuffled.sample(items * 2, 2 * len(items))):
        replied, provider_id = Replied(services), f"order {next(NAMES)}"
        named = [{**one, "provider_id": provider_id} for one in order]
        before = named[: shuffled.randint(0, len(named))]
        replied.hear(*before)
        replied.settle(replied.begin(), provider_id=provider_id)
        for one in named[len(before) :]:
            replied.hear(one)
        row = replied.read()
        ends.append([getattr(row, name) for name in SAID])
        told = services.database.rows("SELECT FROM failures_to_tell WHERE reply_id = %s", (replied.id,))
        assert len(told) == (row.state == "failed")
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize("order", list(permutations(("sent", "delivered", "failed"))), ids="-".join)
def test_failed_counts_only_below_delivered(replied: Replied, order: tuple[str, ...]) -> None:
    replied.send()
    for state in order:
        replied.hear(status(state))
    assert (replied.read().state, replied.read().failed_at) == ("delivered", None)


def test_of_a_group_the_first_participants_copy_is_the_replys_and_nobodys_failure_is(replied: Replied) -> None:
    replied.send()
    replied.hear(status("failed", participant="anna"))
    assert replied.read().state == "sent"
    replied.hear(status("delivered", participant="ben"), status("delivered", participant="anna"))
    assert replied.read().state == "delivered"


@pytest.mark.parametrize("given_up", [False, True])
def test_our_key_settles_a_reply_of_which_nobody_knew(replied: Replied, given_up: bool) -> None:
    begun = replied.begin()
    replied.settle(begun, "unknown")
    if given_up:
        replied.settle(begun, "give_up")
    assert replied.read().state == ("unknown" if given_up else "pending")
    [answer] = replied.hear(status("sent", key=str(replied.id)))
    assert (answer["outcome"], answer["goes_on"]) == ("moved", not given_up)
    assert (replied.read().state, replied.read().given_up_at, replied.waits()) == ("sent", None, [])
    assert replied.begin(2)["outcome"] == "idle"


def test_our_key_settles_a_reply_in_mid_send_and_the_answer_that_comes_after_changes_nothing(replied: Replied) -> None:
    begun = replied.begin()
    replied.hear(status("delivered", key=str(replied.id)))
    assert replied.settle(begun, provider_id="p1") == "delivered"
    assert (replied.read().state, replied.read().duplicated_at) == ("delivered", None)


def test_what_is_said_before_our_own_mark_and_without_our_key_counts_once_the_reply_is_accepted(
    replied: Replied,
) -> None:
    begun = replied.begin()
    assert replied.hear(status("read"), status("delivered"))[0]["outcome"] == "kept"
    assert replied.settle(begun, provider_id="p1") == "read"
    assert replied.read().delivered_at is not None


def test_a_second_message_of_a_reply_is_a_duplicate_which_is_known_once(replied: Replied) -> None:
    begun = replied.begin()
    replied.settle(begun, "unknown")
    replied.settle(begun, "absent")
    assert replied.settle(replied.begin(), provider_id="p2") == "sent"
    late = status("sent", key=str(replied.id))
    assert [one["duplicated"] for one in replied.hear(late, late)] == [True, False]
    assert (replied.read().provider_id, replied.read().duplicated_at is not None) == ("p2", True)


def test_that_the_first_request_of_a_resent_reply_failed_does_not_end_the_second(replied: Replied) -> None:
    begun = replied.begin()
    replied.settle(begun, "unknown")
    replied.settle(begun, "absent")
    replied.hear(status("failed", key=str(replied.id)))
    assert (replied.read().state, replied.waits()) == ("pending", ["pending"])
    assert replied.settle(replied.begin(), provider_id="p2") == "sent"
    replied.hear(status("failed", key=str(replied.id)))
    assert replied.read().state == "sent"


def test_that_the_newest_request_of_a_resent_reply_failed_counts_also_before_our_own_mark(
    services: Services, replied: Replied
) -> None:
    begun = replied.begin()
    replied.settle(begun, "unknown")
    replied.settle(begun, "absent")
    begun = replied.begin()
    for provider_id in ("p1", "p2"):
        replied.hear(status("failed", provider_id, key=str(replied.id), failure="unreachable"))
    assert replied.waits() == ["sending"]
    assert replied.settle(begun, provider_id="p2") == "failed"
    assert [row.word for row in services.database.rows("SELECT word FROM failures_to_tell")] == ["unreachable"]


@pytest.mark.parametrize("order", [("sent", "failed"), ("failed", "sent")], ids="-".join)
def test_of_a_resent_reply_as_well_failed_counts_whatever_comes_first(
    services: Services, replied: Replied, order: tuple[str, ...]
) -> None:
    begun = replied.begin()
    replied.settle(begun, "unknown")
    replied.settle(begun, "absent")
    begun = replied.begin()
    said = [replied.hear(status(state, "p2", key=str(replied.id)))[0] for state in order]
    assert (said[1]["failed"], replied.read().state) == (True, "failed")
    assert replied.settle(begun, provider_id="p2") == "failed"
    assert len(services.database.rows("SELECT FROM failures_to_tell")) == 1


def test_a_failure_that_was_kept_counts_when_the_reply_is_given_up(services: Services, replied: Replied) -> None:
    replied.settle(replied.begin(), "unknown")
    replied.settle(replied.begin(), "resend")
    begun = replied.begin()
    replied.settle(begun, "unknown")
    replied.hear(status("failed", "p2", key=str(replied.id), failure="unreachable"))
    assert replied.settle(begun, "give_up") == "failed"
    assert (replied.read().provider_id, replied.read().given_up_at) == ("p2", None)
    assert [row.word for row in services.database.rows("SELECT word FROM failures_to_tell")] == ["unreachable"]
    assert services.database.rows("SELECT FROM reply_statuses") == []


@pytest.mark.parametrize("order", list(permutations(("sent", "failed"))), ids="-".join)
def test_a_reply_of_which_an_earlier_request_failed_in_mid_send_is_sent_once_the_newest_is_accepted(
    services: Services, replied: Replied, order: tuple[str, ...]
) -> None:
    replied.settle(replied.begin(), "unknown")
    replied.settle(replied.begin(), "absent")
    begun = replied.begin()
    replied.hear(*(status(state, "p1", key=str(replied.id)) for state in order))
    assert replied.read().state == "failed"
    assert replied.settle(begun, provider_id="p2") == "sent"
    assert (replied.read().provider_id, replied.read().failure) == ("p2", None)
    assert services.database.rows("SELECT FROM failures_to_tell") == []
    replied.hear(status("failed", "p1", key=str(replied.id)))
    assert replied.read().state == "sent"
    replied.hear(status("failed", "p2", key=str(replied.id)))
    assert replied.read().state == "failed"


def test_a_late_answer_to_an_earlier_request_does_not_mend_what_the_newest_failed_at(replied: Replied) -> None:
    first = replied.begin()
    replied.settle(first, "unknown")
    replied.settle(first, "absent")
    replied.send("p2")
    replied.hear(status("failed", "p2"))
    assert replied.settle(first, provider_id="p1") == "failed"
    assert replied.read().provider_id == "p2"


@pytest.mark.parametrize(("said", "state", "waits"), [("sent", "pending", ["pending"]), ("delivered", "delivered", [])])
def test_that_a_failed_request_was_sent_says_nothing_of_the_one_that_an_operator_asked_for(
    services: Services, replied: Replied, said: str, state: str, waits: list[str]
) -> None:
    replied.send()
    replied.hear(status("failed"))
    assert services.reply_acts.resend(replied.id, by="ann").did
    replied.hear(status(said))
    assert (replied.read().state, replied.waits()) == (state, waits)


def test_a_probe_that_its_provider_says_it_has_mends_the_channel_before_our_own_mark(
    services: Services, replied: Replied
) -> None:
    replied.settle(replied.begin(), "broken", failure="denied")
    services.database.rows("UPDATE channel_holds SET probe_at = clock_timestamp()")
    begun = replied.begin()
    replied.hear(status("delivered", key=str(replied.id)))
    assert replied.settle(begun, provider_id="p1") == "delivered"
    assert [row.broken_at for row in services.database.rows("SELECT broken_at FROM channel_holds")] == [None]


def test_a_failure_has_our_word_ends_what_waits_and_lets_the_lane_go_on(
    services: Services, statuses: Statuses, log_lines: list[Any]
) -> None:
    replied = Replied(services, "one", "two")
    replied.settle(replied.begin(), "unknown")
    services.out_lanes.enqueue(replied.user.user_id, replied.id)
    [leased] = services.out_lanes.lease("w", 1, 1, 10).leases
    services.out_lanes.park(leased, 3_600)
    statuses.note("demo", [Status(provider_id="p", state="failed", key=replied.id, failure_code="410")])
    assert (replied.read().state, replied.read().failure) == ("failed", "gone")
    assert [one.user_id for one in services.out_lanes.lease("w", 2, 1, 10).leases] == [replied.user.user_id]
    assert replied.begin(leased.fence + 1)["reply"]["text"] == "two"


def test_what_fits_no_reply_is_kept_and_forgotten_after_days(services: Services, statuses: Statuses) -> None:
    statuses.note("demo", [Status(provider_id="nobodys", state=state) for state in ("sent", "sent", "read")])
    kept = "SELECT state FROM reply_statuses ORDER BY state"
    assert [row.state for row in services.database.rows(kept)] == ["read", "sent"]
    services.database.rows("SELECT forget_statuses(clock_timestamp(), 100)")
    assert services.database.rows(kept) == []


def test_two_webs_take_a_thousand_statuses_shuffled_and_doubled_at_once(services: Services, settings: Settings) -> None:
    users = [Replied(services) for _ in range(50)]
    for nr, one in enumerate(users):
        one.send(f"p{nr}")
    said = [Status(provider_id=f"p{nr}", state=state) for nr in range(50) for state in ("sent", "delivered", "read")]
    said = said * 4 + [Status(provider_id=f"p{nr}", state="delivered", key=one.id) for nr, one in enumerate(users)] * 8
    assert len(said) == 1_000
    other, problems = open_services(settings), []

    def note(services: Services, said: list[Status]) -> None:
        statuses = Statuses(services.database, services.providers, services.out_lanes, services.failures)
        try:
            statuses.note("demo", said, NOTED_S)
        except Exception as error:  # noqa: BLE001 - the test reads it
            problems.append(error)

    began = monotonic()
    threads = [Thread(target=note, args=(web, order)) for web, order in ((services, said), (other, said[::-1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert problems == []
    assert monotonic() - began < NOTED_S
    assert {one.read().state for one in users} == {"read"}
    assert services.database.rows("SELECT FROM reply_statuses") == []


def test_a_lane_that_somebody_holds_is_waited_for(services: Services, statuses: Statuses, replied: Replied) -> None:
    replied.send()
    noting = Thread(target=statuses.note, args=("demo", [Status(provider_id="p1", state="read")]))
    with services.database.transaction() as holder:
        holder.execute("SELECT FROM out_lanes FOR NO KEY UPDATE")
        noting.start()
        waits = "SELECT FROM pg_locks WHERE NOT granted"
        eventually(lambda: holder.execute(waits).fetchall())
    noting.join()
    assert replied.read().state == "read"
