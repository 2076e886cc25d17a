"""A signed request, as what verifies it takes it: untouched, bounded, and read only as far as it may be signed."""

from flask import request
from werkzeug.exceptions import HTTPException

from onelane.channels import Inbound, Provider
from onelane.errors import BadRequest, BadSignature, Unsupported
from onelane_web.serving.answer import WAITED_S


def look_at_head(provider: Provider) -> None:
    """Refuse what the head alone shows not to be the provider's, before the body is read: nobody knows who asks."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Unsupported("the body must not be compressed")
    for name in provider.signed_by:
        if not request.headers.get(name):
            raise BadSignature("the signature is missing", f"the header {name} is missing")


def inbound_of(public_url: str | None, body: bytes) -> Inbound:
    """Copy the request, its body unparsed: a signature is over the raw bytes."""
    query = request.query_string.decode("latin-1")
    return Inbound(
        url=address_of(public_url) + (f"?{query}" if query else ""),
        headers={name.lower(): value for name, value in request.headers.items()},
        content_type=request.mimetype,
        body=body,
    )


def address_of(public_url: str | None) -> str:
    """Return the address that the provider called, as far as we know it, without its query."""
    here = f"{request.scheme}://{request.host}{request.root_path}"
    return (public_url or here).rstrip("/") + request.path


def waited_s() -> float:
    """Return how long the request has waited for a thread, under our own server."""
    waited: float = request.environ.get(WAITED_S, 0.0)
    return waited


def body_of(max_bytes: int) -> bytes:
    """Read the body; one that is said to be larger is refused unread."""
    request.max_content_length = max_bytes
    try:
        body = request.get_data(cache=False)
        if request.content_length is None:
            # A chunked body is cut at the limit without an error; only reading on raises.
            request.stream.read(1)
    except HTTPException:
        raise
    except Exception:  # noqa: BLE001 - broken chunks have types of the server's own
        raise BadRequest("body", "cannot be read") from None
    return body
