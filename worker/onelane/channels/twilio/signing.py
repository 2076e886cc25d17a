"""How Twilio signs: the public address and the fields of a form; of another body, its hash within the address.

It is ten lines of HMAC; the SDK that has them is 51 MB, and signs what the tests verify here.
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import product
from urllib.parse import parse_qs, urlsplit

from onelane.channels.provider import Inbound
from onelane.channels.twilio.forms import FORM, Pairs, pairs_of

HEADER = "X-Twilio-Signature"
BASE64_OF_SHA1 = re.compile(r"[A-Za-z0-9+/]{27}=")
QUERY_FIELDS_MAX = 100
ADDRESS_MAX = 300
PATH_PARTS = 2
"""Of the address of a webhook, without what `public_url` puts in front: /webhooks/support."""
DEFAULT_PORTS = {"http": 80, "https": 443}


def is_signed(request: Inbound, secrets: Sequence[str]) -> bool:
    """Whether one of the tokens signed the request, as it was received. What has no signature costs nothing more."""
    return _signed_address(request, secrets, [request.url]) is not None


def signature(secret: str, url: str, pairs: Pairs) -> str:
    """Sign a form as Twilio does: the address, then each key with each of its values, sorted, each once."""
    return _mac(secret, _bytes(url) + _content(pairs)).decode()


def why_not(request: Inbound, secrets: Sequence[str]) -> str:
    """Tell the operator why no token verifies: mostly it is the address that Twilio does not know by this name."""
    if not request.header(HEADER):
        return f"the header {HEADER} is missing"
    if (signed := _signed_address(request, secrets, _other_addresses(request))) is not None:
        return f"it is signed for {signed.partition('?')[0][:ADDRESS_MAX]}: public_url must be how Twilio calls it"
    return "no token of the channel gives this signature over this address: is public_url the one that Twilio calls?"


def _signed_address(request: Inbound, secrets: Sequence[str], addresses: Iterable[str]) -> str | None:
    """Return the first of these addresses over which one of the tokens gives the request's signature."""
    given = request.header(HEADER)
    if not BASE64_OF_SHA1.fullmatch(given):
        return None
    is_form = request.content_type == FORM
    if not (is_form or _is_hashed(request)):
        return None
    content = _content(pairs_of(request.body)) if is_form else b""
    return next(
        (
            address
            for address in addresses
            for secret in secrets
            for url in _spellings(address)
            if hmac.compare_digest(given.encode(), _mac(secret, _bytes(url) + content))
        ),
        None,
    )


def _other_addresses(request: Inbound) -> Iterator[str]:
    """Go through the addresses under which a proxy or a tunnel may be called for us."""
    try:
        parts = urlsplit(request.url)
    except ValueError:
        return
    hosts = filter(None, (parts.netloc, request.header("host"), request.header("x-forwarded-host")))
    paths = (parts.path, "/" + "/".join(parts.path.split("/")[-PATH_PARTS:]))
    for scheme, host, path in product(("https", "http"), dict.fromkeys(hosts), dict.fromkeys(paths)):
        yield parts._replace(scheme=scheme, netloc=host, path=path).geturl()


def _content(pairs: Pairs) -> bytes:
    return _bytes("".join(name + value for name, value in sorted(set(pairs))))


def _bytes(text: str) -> bytes:
    """Return what came: bytes that are not UTF-8 were read with surrogateescape, and are signed as they are."""
    return text.encode("utf-8", "surrogateescape")


def _mac(secret: str, signed: bytes) -> bytes:
    return b64encode(hmac.digest(_bytes(secret), signed, "sha1"))


def _spellings(url: str) -> tuple[str, ...]:
    """Return the address without and with its port: Twilio signs either."""
    found = re.fullmatch(r"(https?)://([^/?#]*?)(:\d*)?([/?#].*)?", url, re.DOTALL)
    if found is None:
        return (url,)
    scheme, host, port, rest = found.groups(default="")
    return f"{scheme}://{host}{rest}", f"{scheme}://{host}{port or f':{DEFAULT_PORTS[scheme]}'}{rest}"


def _is_hashed(request: Inbound) -> bool:
    """Compare the body with the hash in the signed address."""
    try:
        [given, *_] = parse_qs(urlsplit(request.url).query, max_num_fields=QUERY_FIELDS_MAX)["bodySHA256"]
    except (ValueError, KeyError):
        return False
    return hmac.compare_digest(given.encode("utf-8", "replace"), sha256(request.body).hexdigest().encode())
