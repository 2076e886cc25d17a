"""openssl signs."""

from dataclasses import replace
from subprocess import run

from onelane.channels import Inbound
from onelane.testing.conformance.case import settings_of

SETTINGS = settings_of("meta")
SECRET = SETTINGS["secrets"][0]


def signed(request: Inbound) -> Inbound:
    """Sign the raw bytes."""
    mac = openssl_hmac(SECRET, request.body)
    return replace(request, headers={**request.headers, "x-hub-signature-256": f"sha256={mac}"})


def openssl_hmac(secret: str, body: bytes) -> str:
    """Let openssl sign."""
    command = ["openssl", "dgst", "-sha256", "-hmac", secret]
    return run(command, input=body, capture_output=True, check=True).stdout.decode().split()[-1]
