"""The process that plays the provider which sends, the users behind it, and the operator.

    python -m tests.chaos.traffic.provider --seed N --seconds T --web URL --web URL
                                           [--rate 50] [--database-url U --redis-url U]

Environment: DATABASE_URL and REDIS_URL (straight to the servers, not through proxies; the options override them),
CHANNELS as the service has them, CHAOS_HISTORY. Start it when the webs answer; killed, start it again with the same
arguments: it delivers what it had begun, and goes on with what is due by then; nobody has written meanwhile. In
CHAOS_HISTORY it looks for two files:

- `quiet`: while it is there nothing new is sent that makes the bot hang or crash. Make it before a calm period, as long
  before as such a message's effects last; remove it afterwards.
- `heal`: the storm is over. No new traffic; what was never acknowledged is delivered; old messages come once more;
  paused and escalated users are given back; dead messages are redriven; when nothing waits, all replies are read.

It ends with 0; with 1, after one line on standard error each, when the service refused what it must take, a command
was not carried out, or messages still wait after DRAIN_MAX_S. After T seconds it waits for `heal`.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import merge
from pathlib import Path

import click

from onelane.bootstrap import open_services
from onelane.config import Settings
from onelane.telemetry.log import configure
from tests.chaos.history import HISTORY, Recorder
from tests.chaos.stalls import watch_stalls
from tests.chaos.traffic.correspondence import Correspondence
from tests.chaos.traffic.drain import Drain
from tests.chaos.traffic.operations import Operations
from tests.chaos.traffic.past import Past, past_of
from tests.chaos.traffic.plan import AFTER_ALL, ECHO, FORGET, RENAME, Command, Post, Step, User, users
from tests.chaos.traffic.postman import Postman, backoff_s, echo_id

POSTS_AT_ONCE_MAX = 64
COMMANDS_AT_ONCE_MAX = 2
REDIS_TIMEOUT_S = 3.0
TICK_S = 0.1
DISRUPTIVE = frozenset({"hang", "crash"})


class Office:
    """Does the posting and the commanding, a bounded number of things at once."""

    def __init__(self, postman: Postman, operations: Operations, past: Past, recorder: Recorder) -> None:
        self._recorder = recorder
        self.problems: list[str] = []
        """What must not happen, in words."""
        self._postman = postman
        self._operations = operations
        self._past = past
        self._posts = ThreadPoolExecutor(POSTS_AT_ONCE_MAX, thread_name_prefix="post")
        self._commands = ThreadPoolExecutor(COMMANDS_AT_ONCE_MAX, thread_name_prefix="command")

    def post(self, user: User, post: Post, then: Callable[[int], None]) -> None:
        """Deliver until accepted."""
        self._posts.submit(self._deliver, user, post, then).add_done_callback(self._check)

    def command(self, name: str, user: User, after_seq: int, then: Callable[[], None]) -> None:
        """Carry out a command."""
        self._commands.submit(self._command, name, user, after_seq, then).add_done_callback(self._check)

    def _deliver(self, user: User, post: Post, then: Callable[[int], None]) -> None:
        attempt = self._past.tries[post.delivery] + 1
        while True:
            answer, seq = self._postman.deliver(user, post, attempt)
            if answer.is_refused:
                self.problems.append(f"{post.delivery} was refused: {answer.status} {answer.body[:200]!r}")
            if answer.is_accepted or answer.is_refused:
                break
            time.sleep(backoff_s(attempt))
            attempt += 1
        then(seq)

    def rename(self, user: User, nr: int, then: Callable[[], None]) -> None:
        """Deliver a new name until it is accepted."""
        self._commands.submit(self._rename, user, nr, then).add_done_callback(self._check)

    def _rename(self, user: User, nr: int, then: Callable[[], None]) -> None:
        attempt = 1
        while not (answer := self._postman.rename(user, nr, attempt)).is_accepted:
            if answer.is_refused:
                self.problems.append(f"renaming {nr} was refused: {answer.status} {answer.body[:200]!r}")
                break
            time.sleep(backoff_s(attempt))
            attempt += 1
        then()

    def echo(self, user: User, nr: int, after_seq: int, then: Callable[[], None]) -> None:
        """Deliver what a colleague has written until it is accepted."""
        self._commands.submit(self._echo, user, nr, after_seq, then).add_done_callback(self._check)

    def _echo(self, user: User, nr: int, after_seq: int, then: Callable[[], None]) -> None:
        user_id = self._operations.user_of(user)
        this = {"name": ECHO, "user_id": user_id, "message_id": echo_id(user, nr), "after_seq": after_seq, "nr": nr}
        self._recorder.note("command", **this, phase="begin")
        attempt = 1
        while not (answer := self._postman.echo(user, nr, attempt)).is_accepted:
            if answer.is_refused:
                self.problems.append(f"echo {nr} was refused: {answer.status} {answer.body[:200]!r}")
                break
            time.sleep(backoff_s(attempt))
            attempt += 1
        self._recorder.note("command", **this, phase="end", is_done=answer.is_accepted, answer=None)
        then()

    def _command(self, name: str, user: User, after_seq: int, then: Callable[[], None]) -> None:
        try:
            if (user_id := self._operations.user_of(user)) is not None:
                if name == FORGET:
                    words = [user.sender, user.mark]
                    self._recorder.note(
                        "forgotten", user_id=user_id, channel=user.channel, sender=user.sender, words=words
                    )
                self._operations.do(name, user_id, after_seq)
        finally:
            then()

    def _check(self, future: Future[None]) -> None:
        if (error := future.exception()) is not None:
            self.problems.append(f"{type(error).__name__}: {error}")


class Traffic:
    """Plays the plan to the service."""

    def __init__(
        self, correspondences: Sequence[Correspondence], operations: Operations, past: Past, history: Path
    ) -> None:
        self._correspondences = correspondences
        self._operations = operations
        self._past = past
        self._history = history
        self.sent: list[tuple[Correspondence, Post]] = []
        self._posted = set(past.tries)
        """The deliveries that were tried."""

    def offer(self, seconds: float) -> None:
        """Send what the plan has for `seconds`, each thing in its time; then wait until the storm is over."""
        if self._past.until:
            self._past.until = time.monotonic() - self._past.began_at
        for correspondence, step in merge(*map(_steps, self._correspondences), key=lambda pair: pair[1].at):
            is_past = step.at <= self._past.until
            if step.at > seconds or not (is_past or self._wait_until(self._past.began_at + step.at)):
                break
            if self._is_wanted(step):
                correspondence.add(step)
                if isinstance(step, Post):
                    self.sent.append((correspondence, step))
                    self._posted.add(step.delivery)
        while not self._is_over():
            time.sleep(TICK_S)

    def redo(self) -> None:
        """Carry the commands out that a killed predecessor had begun; nothing of their users was sent since."""
        for correspondence in self._correspondences:
            event = self._past.unfinished.get(str(self._operations.user_of(correspondence.user)))
            if event and event["name"] != "redrive":  # a redrive done, or not done, is plain from its message
                correspondence.add(Command(self._past.until, event["name"], event.get("nr", 0)))

    def _is_wanted(self, step: Step) -> bool:
        if isinstance(step, Command):  # a predecessor may not have come as far as a renaming, and it may be told twice
            return step.at > self._past.until or step.name == RENAME
        if step.delivery.endswith(AFTER_ALL) and step.delivery.removesuffix(AFTER_ALL) not in self._posted:
            return False  # it would be new
        if step.at <= self._past.until:
            return step.delivery in self._past.tries and step.delivery not in self._past.acknowledged
        return not (step.ask.word in DISRUPTIVE and (self._history / "quiet").exists())

    def _wait_until(self, when: float) -> bool:
        """Wait; return False when the storm is over before."""
        while (left := when - time.monotonic()) > 0:
            if self._is_over():
                return False
            time.sleep(min(left, TICK_S))
        return not self._is_over()

    def _is_over(self) -> bool:
        return (self._history / "heal").exists()


def _steps(correspondence: Correspondence) -> Iterator[tuple[Correspondence, Step]]:
    return ((correspondence, step) for step in correspondence.user.steps())


@click.command()
@click.option("--seed", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--web", "webs", multiple=True, required=True)
@click.option("--rate", type=float, default=40.0, show_default=True, help="Messages a second, on average.")
@click.option("--database-url", envvar="DATABASE_URL", required=True)
@click.option("--redis-url", envvar="REDIS_URL", required=True)
def main(seed: int, seconds: float, webs: Sequence[str], rate: float, database_url: str, redis_url: str) -> None:
    """Play the provider."""
    os.environ.update(DATABASE_URL=database_url, REDIS_URL=redis_url)
    settings = Settings.from_environment()
    configure("ERROR", "json")
    history, recorder = Path(os.environ[HISTORY]), Recorder("provider")
    past = past_of(history)
    watch_stalls(recorder)
    services = open_services(settings, redis_timeout_s=REDIS_TIMEOUT_S)
    postman = Postman(settings.channels, webs, recorder)
    operations = Operations(services, recorder, history)
    office = Office(postman, operations, past, recorder)
    correspondences = [Correspondence(user, office, past.seqs.get(user.sender)) for user in users(seed, rate)]
    traffic = Traffic(correspondences, operations, past, history)
    traffic.redo()
    traffic.offer(seconds)
    Drain(correspondences, operations, postman, recorder, office.problems).run(traffic.sent)
    services.close()
    for problem in office.problems:
        click.echo(f"provider: {problem}", err=True)
    sys.stderr.flush()
    os._exit(bool(office.problems))  # a post that hangs must not keep the process


if __name__ == "__main__":
    main()
