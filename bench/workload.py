"""Who writes how much, in which order."""

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Self

from bench.checking import Sent
from onelane.deliveries import Delivery

HOT_PART = 0.5
SEED = 20


@dataclass(frozen=True)
class Workload:
    """Messages of many users; `hot_users` of them, if any, write half of all, and everybody at random times."""

    users: int
    messages: int
    hot_users: int = 0

    def __str__(self) -> str:
        hot = f", {self.hot_users} of whom write half of them" if self.hot_users else ""
        return f"{self.messages:,} messages of {self.users} users{hot}"

    def part(self, share: float) -> Self:
        """Take as many users as `share` says, each writing as much as before."""
        users = max(1, round(self.users * share))
        return replace(
            self,
            users=users,
            messages=users * (self.messages // self.users),
            hot_users=max(1, round(self.hot_users * share)) if self.hot_users else 0,
        )

    def senders(self) -> list[int]:
        """Return the sender of each message: in turns, or, with hot users, in one random order."""
        if not self.hot_users:
            return [number % self.users for number in range(self.messages)]
        hot = int(self.messages * HOT_PART)
        others = self.users - self.hot_users
        senders = [number % self.hot_users for number in range(hot)]
        senders += [self.hot_users + number % others for number in range(self.messages - hot)]
        random.Random(SEED).shuffle(senders)  # noqa: S311 - the same order for all contestants
        return senders

    def sent(self) -> list[Sent]:
        """Return who sends what, in order."""
        written: Counter[int] = Counter()
        found = []
        for sender in self.senders():
            written[sender] += 1
            number = written[sender]
            found.append(Sent(f"{sender}-{number}", f"user {sender}", f"message {number}", number))
        return found

    def deliveries(self) -> list[Delivery]:
        """Make the messages as a channel's adapter would."""
        return [one.delivery for one in self.sent()]
