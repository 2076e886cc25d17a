"""Twilio's SDK signs."""

from dataclasses import replace
from hashlib import sha256
from urllib.parse import parse_qsl

from twilio.request_validator import RequestValidator
from werkzeug.datastructures import MultiDict

from onelane.channels import Inbound

TOKEN = "auth-token-of-today"
SETTINGS = {"secrets": [TOKEN], "account_sid": "AC00000000000000000000000000000001"}
FORM = "application/x-www-form-urlencoded"


def signed(request: Inbound) -> Inbound:
    """Sign the address and the form; of another body, its hash in the address."""
    if request.content_type != FORM:
        mark = "&" if "?" in request.url else "?"
        request = replace(request, url=f"{request.url}{mark}bodySHA256={sha256(request.body).hexdigest()}")
    pairs = parse_qsl(request.body.decode(), keep_blank_values=True) if request.content_type == FORM else []
    mac = RequestValidator(TOKEN).compute_signature(request.url, MultiDict(pairs))
    return replace(request, headers={**request.headers, "x-twilio-signature": mac})
