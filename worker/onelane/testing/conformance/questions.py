"""What an application is asked about a case: requests, each with the answers that are right."""

import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from onelane.channels import Inbound
from onelane.testing.conformance.case import Case
from onelane.testing.conformance.signing import PROOFS, TIMED, UNSIGNED_BODIES, signed

TAKEN: Final = range(200, 300)
REFUSED: Final = range(400, 500)
OLD_S: Final = 3_600
CHALLENGE: Final = "hub.challenge"


@dataclass(frozen=True)
class Question:
    """A request, and what its answer must be."""

    about: str
    request: Inbound
    statuses: Container[int]
    shows: str = ""
    """The answer holds this text."""
    hides: str = ""
    """The answer does not."""
    is_delivered: bool = False
    """The provider sent it: its messages are in from now on."""

    def is_right(self, status: int, body: str) -> bool:
        """Whether an answer is one of the right ones."""
        return status in self.statuses and self.shows in body and not (self.hides and self.hides in body)


def questions(case: Case, url: str, secret: str) -> Iterator[Question]:
    """Ask about a case: as the provider sends it, twice; then as somebody else would.

    What is wrong comes first, so that nothing of it hides behind what is already in.
    """
    unsigned = case.unsigned(url)
    if case.is_get:
        yield _handshake(case, unsigned)
        return
    now = int(time.time())
    request = signed(case.provider, unsigned, secret, now)
    yield Question("not signed", unsigned, REFUSED)
    yield Question("one bit of the signature changed", _proof_changed(case.provider, request), REFUSED)
    if case.provider not in UNSIGNED_BODIES and request.body:
        yield Question("one bit of the body changed", replace(request, body=_changed(request.body)), REFUSED)
    if case.provider in TIMED:
        yield Question("signed an hour ago", signed(case.provider, unsigned, secret, now - OLD_S), REFUSED)
    yield _delivery("signed", case, request)
    yield _delivery("delivered again", case, request)


def _handshake(case: Case, request: Inbound) -> Question:
    """Ask whose address this is, by GET: who knows the token gets the challenge back, and nobody else."""
    challenge = case.request.get("query", {}).get(CHALLENGE, "")
    if "refused" in case.expected:
        return Question("handshake", request, REFUSED, hides=challenge)
    return Question("handshake", request, TAKEN, shows=challenge)


def _delivery(about: str, case: Case, request: Inbound) -> Question:
    """Of what cannot be understood, only a failure of the application's own is wrong."""
    items = case.expected.get("items", [])
    is_understood = any(item["type"] != "quarantined" for item in items)
    challenge = _challenge(case.expected) if not items else ""
    statuses = TAKEN if is_understood or challenge else range(200, 500)
    return Question(about, request, statuses, shows=challenge, is_delivered=True)


def _challenge(expected: Mapping[str, Mapping[str, str]]) -> str:
    return expected["answer"]["body"] if "answer" in expected else ""


def _proof_changed(provider: str, request: Inbound) -> Inbound:
    proof = PROOFS[provider]
    return replace(request, headers={**request.headers, proof: _changed(request.headers[proof].encode()).decode()})


def _changed(text: bytes) -> bytes:
    """Change one bit, in the middle, and leave it text."""
    middle = len(text) // 2
    return text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :]
