"""A user's file: fetched from its provider's own hosts, within its bounds, and the token goes nowhere else."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from onelane.channels import FileRequest
from onelane.channels.fetching import fetched, open_client
from onelane.channels.provider import FileSteps
from onelane.config import Channel, Settings
from onelane.errors import FileAway, FileError, FileGone, FileTooLarge, HandlerWaits, describe
from onelane.model import Attachment, File
from onelane.turns.blame import blamed
from onelane.turns.files import Files
from tests import loops
from tests.file_server import TOKEN, FileServer, WithFiles, serving

MAX_BYTES = 1_000
PHOTO = b"\x89PNG" + bytes(500)
SETTINGS = Settings(
    database_url="postgresql://h/d",
    redis_url="redis://h",
    channels={"demo": Channel(provider="standard", secrets=("whsec_" + "x" * 32,))},
    fetch_max_bytes=1_024,
    fetch_timeout_s=10,
)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        yield server


def steps(*requests: FileRequest) -> FileSteps:
    for request in requests:  # noqa: UP028 - what is sent is not for a tuple
        yield request


def fetch(given: FileSteps) -> File:
    async def run() -> File:
        async with open_client() as client:
            return await fetched(client, given, MAX_BYTES)

    return loops.run(run())


def refused(given: FileSteps, kind: type[FileError] = FileError) -> str:
    """Fetch what cannot be; return why. Nothing of it has the token or an address."""
    with pytest.raises(FileError) as failed:
        fetch(given)
    assert type(failed.value) is kind
    shown = describe(failed.value) + repr(failed.value)
    assert TOKEN not in shown
    assert "127.0.0.1" not in shown
    return str(failed.value)


def test_the_last_steps_body_is_the_file_and_each_step_gets_the_body_before(server: FileServer) -> None:
    server.has("/about", b"/photo")
    server.has("/photo", PHOTO)

    def two_steps() -> FileSteps:
        path = yield server.request("/about")
        yield server.request(path.decode())

    assert fetch(two_steps()) == File(content=PHOTO, content_type="image/png")
    assert server.asked == [("/about", TOKEN), ("/photo", TOKEN)]


FOREIGN = [
    "https://evil.example/a",
    "http://files.example/a",
    "https://files.example:8443/a",
    "https://files.example.evil.example/a",
    "https://notfiles.example/a",
    "https://cdn.example/a",
    "https://user@files.example/a",
    "https://evil.example\\@files.example/a",
    "file:///etc/passwd",
    "files.example/a",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_an_address_that_is_not_the_providers_own_is_never_asked(url: str) -> None:
    refused(steps(FileRequest(url, ("files.example", ".cdn.example"), {"Authorization": TOKEN})))


@pytest.mark.parametrize(
    "url", ["https://files.example/a", "https://eu.cdn.example/a", "https://a.b.cdn.example:443/a"]
)
def test_an_address_at_or_below_one_of_the_providers_hosts_is_asked(url: str) -> None:
    # There is no such host: that it is asked for shows in who does not answer.
    refused(steps(FileRequest(url, ("files.example", ".cdn.example"))), FileAway)


def test_an_address_that_nobody_can_read_is_refused() -> None:
    refused(steps(FileRequest("https://files.example:port/a", ("files.example",))))


def test_a_redirect_is_followed_to_the_providers_own_hosts_alone_and_the_token_stays_at_the_first(
    server: FileServer,
) -> None:
    with serving() as cdn, serving() as stranger:
        server.has("/photo", status=302, Location=f"{cdn.origin}/there")
        cdn.has("/there", status=307, Location=f"{server.origin}/back")
        server.has("/back", PHOTO)
        assert fetch(steps(server.request("/photo", cdn.origin))).content == PHOTO
        assert (server.asked, cdn.asked) == ([("/photo", TOKEN), ("/back", "")], [("/there", "")])
        server.has("/away", status=302, Location=f"{stranger.origin}/there")
        refused(steps(server.request("/away", cdn.origin)))
        assert stranger.asked == []


def test_redirects_and_steps_come_to_an_end(server: FileServer) -> None:
    server.has("/around", status=302, Location="/around")
    assert "too often" in refused(steps(server.request("/around")))
    server.has("/photo", PHOTO)
    assert "too many steps" in refused(steps(*[server.request("/photo")] * 9))


@pytest.mark.parametrize("length", ["1001", ""], ids=["as it says", "as it comes"])
def test_a_file_with_too_many_bytes_is_not_read_to_its_end(server: FileServer, length: str) -> None:
    server.has("/photo", bytes(MAX_BYTES + 1), Content_Length=length)
    assert refused(steps(server.request("/photo")), FileTooLarge) == "it has more than 1000 bytes"
    server.has("/photo", bytes(MAX_BYTES))
    assert len(fetch(steps(server.request("/photo"))).content) == MAX_BYTES


STATUSES = [(404, FileGone), (410, FileGone), (401, FileError), (403, FileError), (204, FileError)]


@pytest.mark.parametrize(("status", "kind"), [*STATUSES, (429, FileAway), (500, FileAway), (503, FileAway)])
def test_what_a_provider_answers_instead_of_a_file(server: FileServer, status: int, kind: type[FileError]) -> None:
    server.has("/photo", status=status)
    assert str(status) in refused(steps(server.request("/photo")), kind)


def test_a_compressed_answer_that_nobody_asked_for_is_refused(server: FileServer) -> None:
    server.has("/photo", PHOTO, Content_Encoding="gzip")
    refused(steps(server.request("/photo")))


def test_a_provider_that_ends_in_the_middle_or_is_not_there_is_away(server: FileServer) -> None:
    server.has("/photo", PHOTO, Content_Length="900")
    refused(steps(server.request("/photo")), FileAway)
    with serving() as gone:
        request = gone.request("/photo")
    refused(steps(request), FileAway)


def test_a_request_for_a_file_shows_no_token() -> None:
    assert TOKEN not in repr(FileRequest(f"https://files.example/{TOKEN}", (), {"Authorization": TOKEN}))


@pytest.fixture
def with_files(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> WithFiles:
    monkeypatch.setattr(WithFiles, "server", server, raising=False)
    return object.__new__(WithFiles)


def test_a_turns_file_comes_from_its_own_channel(with_files: WithFiles, server: FileServer) -> None:
    server.has("/about/7", b"/photo")
    server.has("/photo", PHOTO)
    files = Files(SETTINGS, {"demo": with_files})
    assert files.fetch("demo", Attachment(id="7")).result().content == PHOTO
    with pytest.raises(FileError, match="configured no more"):
        files.fetch("gone", Attachment(id="7")).result()


def test_a_file_has_its_time_however_slowly_it_comes(with_files: WithFiles, server: FileServer) -> None:
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.01):
            handler.wfile.write(b"x")

    server.answers["/about/7"] = drip
    hasty = SETTINGS.model_copy(update={"fetch_timeout_s": 0.5, "fetch_max_bytes": 2**20})
    try:
        with pytest.raises(FileAway, match=r"within 0\.5 s"):
            Files(hasty, {"demo": with_files}).fetch("demo", Attachment(id="7")).result()
    finally:
        over.set()


def test_a_turn_waits_for_a_file_for_half_of_its_own_time_at_most() -> None:
    assert Files(SETTINGS.model_copy(update={"turn_timeout_s": 3}), {})._within_s == 1.5


def test_a_provider_without_files_says_so() -> None:
    files = Files(SETTINGS, {"demo": object.__new__(WithFiles.__mro__[1])})
    with pytest.raises(FileError, match="this provider has no files of its own"):
        files.fetch("demo", Attachment(url="https://files.example/a")).result()


def test_a_provider_that_is_away_costs_a_message_no_attempt_and_a_file_that_is_gone_does() -> None:
    assert isinstance(blamed(FileAway("it is away")), HandlerWaits)
    assert not isinstance(blamed(FileGone("it is gone")), HandlerWaits)
