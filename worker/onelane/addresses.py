"""Where a host is: its addresses, looked up under a deadline.

The system's own look-up has none of ours: a name server that never answers keeps it for half a minute or longer. So it
is made in a thread, and who waits for it leaves in time. Who asks for the same host meanwhile waits for the same
look-up: a silent name server holds one thread a host.
"""

import socket
import threading
from concurrent.futures import Future

_under_way: dict[str, "Future[list[str]]"] = {}
_changing = threading.Lock()
"""Guards the look-ups under way: two who ask for one host at once make one."""


def addresses_of(host: str, within_s: float) -> list[str]:
    """Return the addresses of `host`, in numbers; raise OSError, and TimeoutError if they are not known in time."""
    try:
        return _ask(host, socket.AI_NUMERICHOST)
    except OSError:
        return _look_up(host).result(max(0.0, within_s))


def _look_up(host: str) -> "Future[list[str]]":
    """Begin to look it up, unless that is under way."""
    with _changing:
        if host not in _under_way:
            found: Future[list[str]] = Future()
            try:
                threading.Thread(target=_answer, args=(host, found), name="look-up", daemon=True).start()
            except RuntimeError as error:
                raise OSError("the system starts no thread") from error
            _under_way[host] = found
        return _under_way[host]


def _answer(host: str, found: "Future[list[str]]") -> None:
    try:
        found.set_result(_ask(host))
    except OSError as error:
        found.set_exception(error)
    finally:
        with _changing:
            del _under_way[host]


def _ask(host: str, flags: int = 0) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:
        raise OSError("no host can have that name") from error
    return [str(address[0]) for *_, address in answers]
