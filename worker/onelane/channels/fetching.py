"""Fetch a user's file from its provider: step by step, within a bound of bytes, from the provider's own hosts alone.

Neither an address nor a token is in any error: some addresses hold the token.
"""

from typing import TYPE_CHECKING, Final

from onelane.channels.provider import FileRequest, FileSteps
from onelane.errors import BadRequest, FileAway, FileError, FileGone, FileTooLarge
from onelane.model import File

if TYPE_CHECKING:
    from httpx2 import URL, AsyncClient, Response

REDIRECTS_MAX: Final = 3
STEPS_MAX: Final = 4
GONE: Final = frozenset({404, 410})
NOT_NOW: Final = frozenset({408, 425, 429})
SERVER_FAILS: Final = 500
UNCHANGED: Final = frozenset({"", "identity"})


def open_client() -> "AsyncClient":
    """Make what `fetched` asks with. It takes half a second where nobody has fetched before."""
    import httpx2  # noqa: PLC0415 - most processes fetch nothing

    # What stands in the environment for other programs (proxies, ~/.netrc) is not followed.
    return httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=None)


async def fetched(client: "AsyncClient", steps: FileSteps, max_bytes: int) -> File:
    """Take all steps and return the last one's body; raise a FileError. Whoever awaits it bounds its time."""
    import httpx2  # noqa: PLC0415 - as above

    try:
        request = next(steps)
        for _ in range(STEPS_MAX):
            file = await _got(client, request, max_bytes)
            try:
                request = steps.send(file.content)
            except StopIteration:
                return file
    except BadRequest as problem:
        raise FileError(str(problem)) from None
    except httpx2.InvalidURL:
        raise FileError("its address cannot be read") from None
    except httpx2.HTTPError as error:
        raise FileAway(f"its provider cannot be reached: {type(error).__name__}") from None
    raise FileError("there are too many steps to it")


async def _got(client: "AsyncClient", request: FileRequest, max_bytes: int) -> File:
    """Do one GET, and those to which it is redirected. The headers go to the first host alone."""
    import httpx2  # noqa: PLC0415 - as above

    url, headers = httpx2.URL(request.url), {**request.headers}
    for _ in range(REDIRECTS_MAX + 1):
        _check(url, request.hosts)
        async with client.stream("GET", url, headers={**headers, "Accept-Encoding": "identity"}) as answer:
            if not answer.has_redirect_location:
                return await _body(answer, max_bytes)
            target = url.join(answer.headers["location"])
        if _origin(target) != _origin(url):
            headers.clear()
        url = target
    raise FileError("its provider redirects too often")


def _check(url: "URL", hosts: tuple[str, ...]) -> None:
    """Raise FileError unless the address is one of the provider's own."""
    is_default = url.scheme == "https" and url.port is None
    is_known = any(
        _origin(url) == host
        or (is_default and (url.host == host or (host.startswith(".") and url.host.endswith(host))))
        for host in hosts
    )
    if not is_known or url.userinfo:
        raise FileError("it is not at one of its provider's own hosts, over https")


def _origin(url: "URL") -> str:
    return f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")


async def _body(answer: "Response", max_bytes: int) -> File:
    _check_status(answer.status_code)
    if answer.headers.get("content-encoding", "").strip().lower() not in UNCHANGED:
        raise FileError("its provider sends it compressed, unasked")
    size = answer.headers.get("content-length", "")
    if size.isdecimal() and int(size[:20]) > max_bytes:
        raise _too_large(max_bytes)
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    return File(content=bytes(content), content_type=answer.headers.get("content-type"))


def _check_status(status: int) -> None:
    if status in GONE:
        raise FileGone(f"its provider has it no more: {status}")
    if status in NOT_NOW or status >= SERVER_FAILS:
        raise FileAway(f"its provider answers {status}")
    if status != 200:  # noqa: PLR2004 - HTTP's number for: here it is
        raise FileError(f"its provider refuses it: {status}")


def _too_large(max_bytes: int) -> FileTooLarge:
    return FileTooLarge(f"it has more than {max_bytes} bytes")
