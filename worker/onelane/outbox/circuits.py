"""Which channels are broken, as far as this process knows: one line in the log when it begins, one when it is over."""

from onelane.outbox.reply import Deed, Fate
from onelane.telemetry.log import event


class Circuits:
    """The channels that a provider refuses altogether, and those that this process does not have. For one thread."""

    def __init__(self) -> None:
        self._broken: set[str] = set()
        self._missing: set[str] = set()

    def note(self, channel: str, fate: Fate, state: str | None) -> None:
        """Note what a provider answered; a reply that is `failed` by then was refused for what it is."""
        if fate.deed is Deed.BROKEN and state != "failed" and channel not in self._broken:
            self._broken.add(channel)
            event("channel_broken", channel=channel, word=fate.word, code=fate.code)
        elif fate.deed is Deed.ACCEPTED and channel in self._broken:
            self._broken.discard(channel)
            event("channel_mended", channel=channel)

    def note_missing(self, channel: str) -> None:
        """Note that replies wait for a channel that is configured no more."""
        if channel not in self._missing:
            self._missing.add(channel)
            event("channel_missing", channel=channel)
