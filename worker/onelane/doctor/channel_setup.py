"""The set-up of one channel: the address that its provider calls, what it signs, and the way to send."""

from urllib.parse import SplitResult, urlsplit

from onelane.channels import provider_of
from onelane.config import Channel
from onelane.doctor.finding import Deployment, Finding, failed, ok, warning
from onelane.doctor.providers import providers_answer
from onelane.inbox.unsigned import Refusal

ADDRESS_IS_SIGNED = "twilio"
"""The provider that signs the address with the body."""


def examine_channel(
    deployment: Deployment, name: str, called: str | None = None, refusal: Refusal | None = None
) -> dict[str, Finding]:
    """Check one configured channel.

    `called` is the address that the provider calls, as its console shows it; `refusal` that of the newest webhook that
    was not signed as it must be.
    """
    channel = deployment.settings.channels[name]
    alone = deployment.settings.model_copy(update={"channels": {name: channel}})
    examined = {
        "address": address_of(name, channel),
        "signature": signature_of(refusal),
        "sending": way_to_send(channel),
    }
    if called is not None:
        examined["called"] = same_address(name, channel, called)
    if examined["sending"].todo == "":
        examined["provider"] = providers_answer(Deployment(alone, deployment.database, deployment.lanes))
    return examined


def address_of(name: str, channel: Channel) -> Finding:
    """Say which address the provider must call, and warn where the signature needs it to be known."""
    path = f"/webhooks/{name}"
    if channel.public_url is None:
        shown = f"https://<your host>{path}"
        if channel.provider == ADDRESS_IS_SIGNED:
            return warning(
                f"the provider must call {shown}, and signs that address; this service only sees how it was called",
                f"set {channel.place(name)}.public_url to the beginning of the address in the provider's console",
            )
        return ok(f"the provider must call {shown}")
    shown = channel.public_url.rstrip("/") + path
    if not shown.startswith("https://"):
        return warning(f"the provider must call {shown}", "providers call https:// only: correct public_url")
    return ok(f"the provider must call {shown}")


def same_address(name: str, channel: Channel, called: str) -> Finding:
    """Compare what the provider calls with what this service verifies."""
    theirs = _address(called)
    if theirs is None:
        return failed("--called is no address", "give it as the provider's console shows it: https://…")
    ours = urlsplit((channel.public_url or f"{theirs.scheme}://{theirs.netloc}").rstrip("/") + f"/webhooks/{name}")
    wrong = _differences(theirs, ours)
    if not wrong:
        return ok(f"the provider calls {ours.geturl()}, which is what is verified")
    why = (
        "the signature covers the address: it never verifies so"
        if channel.provider == ADDRESS_IS_SIGNED
        else "the webhook does not arrive here"
    )
    return failed(
        f"the provider calls {theirs._replace(query='').geturl()}, and this service expects {ours.geturl()}",
        f"{why}; correct the address in the provider's console, or public_url",
        tuple(wrong),
    )


def signature_of(refusal: Refusal | None) -> Finding:
    """Say why the newest webhook was refused that was not signed as it must be."""
    if refusal is None:
        return ok("no webhook was refused within a day for how it is signed")
    return warning(
        f"a webhook was refused at {refusal.at:%Y-%m-%d %H:%M:%S} UTC: {refusal.reason}",
        "the channel and its provider must have the same secret and address; strangers are refused so, too",
        (f"verified: {refusal.address}",),
    )


def way_to_send(channel: Channel) -> Finding:
    """Check that replies can leave."""
    if provider_of(channel).sender is None:
        return warning("it has no way to send: replies are withheld", "docs/CHANNELS.md says what each provider needs")
    return ok("it has a way to send")


def _address(called: str) -> SplitResult | None:
    try:
        address = urlsplit(called)
        is_whole = address.scheme in {"http", "https"} and bool(address.hostname and _port(address))
    except ValueError:  # brackets or a port that is no number
        return None
    return address if is_whole else None


def _differences(theirs: SplitResult, ours: SplitResult) -> list[str]:
    pairs = {
        "scheme": (theirs.scheme, ours.scheme),
        "host": (theirs.hostname, ours.hostname),
        "port": (_port(theirs), _port(ours)),
        "path": (theirs.path, ours.path),
    }
    return [f"{part}: {one}, expected {other}" for part, (one, other) in pairs.items() if one != other]


def _port(address: SplitResult) -> int:
    return address.port or (443 if address.scheme == "https" else 80)
