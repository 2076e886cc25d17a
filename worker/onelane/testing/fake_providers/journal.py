"""What the fakes received and made visible: a file of JSON lines, each written before the answer.

| event | fields |
|---|---|
| `received` | `n`: its number; `channel`, `provider`, `what`, `user`, `key`, `text`, `kind`, `fault` |
| `refused` | `channel`, `status`: with a wrong token, or not as the provider wants it; `n` is the request's |
| `repeated` | `n`, `channel`, `user`, `key`: the provider has it already, and shows nothing new |
| `visible` | `n`, `channel`, `provider`, `user`, `key`, `text`, `kind`, `provider_id`, `copy`: 1, of a doubled one 2 |
| `shown` | `n`, `channel`, `user`, `text`: that somebody types, or has seen it |
| `callback` | `channel`, `key`, `provider_id`, `state`, `status`: of the answer, 0 when there was none |

`at` is in seconds since 1970. Tokens are in none of them.
"""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """An append-only file."""

    def __init__(self, path: Path) -> None:
        """Open the file; what an earlier run wrote stays."""
        self._file = path.open("ab", buffering=0)

    def write(self, event: str, **fields: Any) -> None:
        """Write one line, at once: it survives us, though not the machine."""
        line = {"event": event, "at": time.time(), **fields}
        self._file.write(json.dumps(line, ensure_ascii=True).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()
