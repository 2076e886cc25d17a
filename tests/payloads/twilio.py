"""Twilio's SDK signs."""

from dataclasses import replace
from hashlib import sha256
from urllib.parse import parse_qsl

from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

from onelane.channels import Inbound
from onelane.testing.conformance.case import FORM, settings_of

SETTINGS = settings_of("twilio")
TOKEN = SETTINGS["secrets"][0]


def signed(request: Inbound) -> Inbound:
    """Sign the address and the form; of another body, its hash in the address."""
    if request.content_type != FORM:
        mark = "&" if "?" in request.url else "?"
        request = replace(request, url=f"{request.url}{mark}bodySHA256={sha256(request.body).hexdigest()}")
    pairs = parse_qsl(request.body.decode(), keep_blank_values=True) if request.content_type == FORM else []
    mac = RequestValidator(TOKEN).compute_signature(request.url, MultiDict(pairs))
    return replace(request, headers={**request.headers, "x-twilio-signature": mac})
