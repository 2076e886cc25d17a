"""A provider's file server, on 127.0.0.1, and an adapter whose files it has."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from onelane.channels import FileRequest
from onelane.channels.provider import FileSteps
from onelane.channels.standard import Standard
from onelane.model import Attachment

TOKEN = "the-files-own-token"
Serve = Callable[[BaseHTTPRequestHandler], None]


class FileServer:
    """Answers each path as it was told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Serve] = {}
        self.asked: list[tuple[str, str]] = []
        """Paths, each with the token that came with it."""
        self.origin = ""

    def has(
        self, path: str, body: bytes = b"", status: int = 200, content_type: str = "image/png", **headers: str
    ) -> None:
        """Answer `path` so; a header's name is written with underscores."""

        def serve(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Type", content_type)
            for name, value in {"Content_Length": str(len(body)), **headers}.items():
                if value:
                    handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = serve

    def request(self, path: str, *more_hosts: str) -> FileRequest:
        """Make the GET of a file, with the token."""
        return FileRequest(f"{self.origin}{path}", (self.origin, *more_hosts), {"Authorization": TOKEN})


@contextmanager
def serving() -> Iterator[FileServer]:
    """Serve files until the block ends."""
    files = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append((self.path, self.headers.get("Authorization", "")))
            files.answers[self.path](self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    files.origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class WithFiles(Standard):
    """A provider whose attachments are paths of `server`; each is found through another GET."""

    server: FileServer

    def file(self, attachment: Attachment) -> FileSteps:
        path = yield self.server.request(f"/about/{attachment.id}")
        yield self.server.request(path.decode())
