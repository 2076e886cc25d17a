"""The commands that a document gives its reader to type."""

import re
from pathlib import Path

BLOCK = re.compile(r"^ *```(console|sh)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\s+# .*$")


def blocks_of(document: Path) -> list[list[str]]:
    """Return the commands of each block, without prompts, comments, and what a command prints."""
    return [
        [COMMENT.sub("", line.removeprefix("$ ")).strip() for line in lines if kind == "sh" or line.startswith("$ ")]
        for kind, text in BLOCK.findall(document.read_text(encoding="utf-8"))
        for lines in [[line.strip() for line in text.replace("\\\n", "").splitlines() if line.strip()]]
    ]


def commands_of(document: Path) -> list[str]:
    """Return all commands of a document."""
    return [command for block in blocks_of(document) for command in block]
