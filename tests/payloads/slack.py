"""Slack's SDK signs."""

import time
from dataclasses import replace

from slack_sdk.signature import SignatureVerifier

from onelane.channels import Inbound
from onelane.testing.conformance.case import settings_of

SETTINGS = settings_of("slack")
SECRET = SETTINGS["secrets"][0]


def signed(request: Inbound) -> Inbound:
    """Sign time and body."""
    stamp = str(int(time.time()))
    mac = SignatureVerifier(SECRET).generate_signature(timestamp=stamp, body=request.body)
    headers = {**request.headers, "x-slack-request-timestamp": stamp, "x-slack-signature": mac or ""}
    return replace(request, headers=headers)
