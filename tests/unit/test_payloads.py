"""What becomes of each provider's webhooks: the cases of onelane.testing.conformance."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

import pytest

from onelane.channels import Inbound, Parsed, Provider
from onelane.errors import BadSignature, DeliveryError
from onelane.model import JsonObject
from onelane.testing.conformance.case import Case, cases
from tests.payloads import ON_THE_NET, channel_of, objects_of, shown

CASES = cases()
POSTED = [case for case in CASES if not case.is_get]
CASES_MIN = 2
WRONG: tuple[Any, ...] = ({"a": []}, [], None)


def named(case: Case) -> str:
    return case.name


def received(provider: Provider, request: Inbound) -> Parsed:
    provider.verify(request)
    return provider.parse(request)


def outcome(case: Case) -> JsonObject:
    """Return what becomes of a case's request, as the files write it."""
    provider, signed = channel_of(case.provider)
    request = case.unsigned() if case.is_get else signed(case.unsigned())
    try:
        parsed = received(provider, request) if not case.is_get else Parsed(answer=provider.handshake(request))
    except DeliveryError as error:
        return {"refused": error.status}
    objects = list(objects_of(case))
    found: JsonObject = {"items": [shown(item, objects) for item in parsed.items]} if parsed.items else {}
    return {**found, "answer": asdict(parsed.answer)} if parsed.answer else found


def misshapen(body: Any) -> Iterator[Any]:
    """Replace each value of a body in turn by those that it cannot be; what was yielded before is gone by then."""
    for place in places(body):
        for key in list(place) if isinstance(place, dict) else range(len(place)):
            kept = place[key]
            for wrong in WRONG:
                place[key] = wrong
                yield body
            place[key] = kept


def places(value: Any) -> Iterator[Any]:
    """Walk through all objects and lists of a JSON value."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from places(inner)


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_webhook_becomes_what_its_case_says(case: Case) -> None:
    assert outcome(case) == case.expected


@pytest.mark.parametrize("case", POSTED, ids=named)
def test_without_its_signature_it_is_refused(case: Case) -> None:
    provider, _ = channel_of(case.provider)
    with pytest.raises(BadSignature):
        provider.verify(case.unsigned())


@pytest.mark.parametrize("provider", ON_THE_NET)
def test_one_value_of_another_type_is_never_an_error_of_ours(provider: str) -> None:
    adapter, _ = channel_of(provider)
    for case in (case for case in POSTED if case.provider == provider and "body" in case.request):
        for body in misshapen(deepcopy(case.request["body"])):
            request = replace(case, request={**case.request, "body": body}).unsigned()
            with suppress(DeliveryError):
                parsed = adapter.parse(request)
                assert parsed.items or parsed.answer, case.name


@pytest.mark.parametrize("provider", ON_THE_NET)
def test_every_provider_has_cases(provider: str) -> None:
    assert len([case for case in CASES if case.provider == provider]) >= CASES_MIN
