"""Slack's SDK signs."""

import time
from dataclasses import replace

from slack_sdk.signature import SignatureVerifier

from onelane.channels import Inbound

SECRET = "a-signing-secret-of-the-test-app"
SETTINGS = {"secrets": [SECRET], "bot_token": "xoxb-of-the-test-app"}


def signed(request: Inbound) -> Inbound:
    """Sign time and body."""
    stamp = str(int(time.time()))
    mac = SignatureVerifier(SECRET).generate_signature(timestamp=stamp, body=request.body)
    headers = {**request.headers, "x-slack-request-timestamp": stamp, "x-slack-signature": mac or ""}
    return replace(request, headers=headers)
