"""The library of Standard Webhooks signs."""

from dataclasses import replace
from datetime import UTC, datetime

from standardwebhooks import Webhook

from onelane.channels import Inbound
from onelane.testing.conformance.case import settings_of

SETTINGS = settings_of("standard")
SECRET = SETTINGS["secrets"][0]


def signed(request: Inbound) -> Inbound:
    """Sign id, time and body; the id is `msg_1` unless the case names one."""
    now = datetime.now(UTC)
    delivery_id = request.header("webhook-id") or "msg_1"
    headers = {
        **request.headers,
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(delivery_id, now, request.body.decode()),
    }
    return replace(request, headers=headers)
