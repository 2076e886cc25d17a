"""The files of a new bot. They are written into a folder of their own, and never over what is there."""

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import Final

from onelane.dev.init.providers import settings_of, steps_of
from onelane.errors import ConfigError

TEMPLATES: Final = Path(__file__).parent / "templates"
NAME_MAX: Final = 50


def create(name: str, folder: Path, providers: Sequence[str] = (), *, with_model: bool = False) -> list[Path]:
    """Write the bot `name` into `folder`, and return the files. Raise ConfigError where it cannot be, before anything.

    `with_model` makes it a bot that asks a language model.
    """
    _check_name(name)
    _check_folder(folder)
    files = {folder / path: text for path, text in _files(name, providers, with_model=with_model)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    return list(files)


def _check_name(name: str) -> None:
    if not name.isidentifier() or not name.isascii() or iskeyword(name) or len(name) > NAME_MAX:
        raise ConfigError(
            f"{name!r} cannot be the name of a Python module: use letters, digits and _, for example mybot"
        )
    if name in sys.stdlib_module_names or find_spec(name) is not None:
        raise ConfigError(f"Python has a module {name} already, which would hide the bot: choose another name")


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"the folder {folder.name} is not empty: nothing was written; choose another name")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder.name} is a file: nothing was written; choose another name")


def _files(name: str, providers: Sequence[str], *, with_model: bool) -> Iterator[tuple[str, str]]:
    """Fill in the templates."""
    values = {
        "name": name,
        "version": version("onelane"),
        "channels": settings_of(providers),
        "steps": steps_of(providers),
        "model": _template("model_env").safe_substitute() if with_model else "",
    }
    kind = "model_" if with_model else ""
    templates = {
        f"{name}.py": f"{kind}bot",
        f"test_{name}.py": f"{kind}test",
        "Procfile": "procfile",
        "requirements.txt": "requirements",
        ".python-version": "python_version",
        ".env.example": "env",
        ".gitignore": "gitignore",
        "README.md": "readme",
    }
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for path, template in templates.items():
        yield path, _template(template).substitute(values, python=python)


def _template(name: str) -> Template:
    return Template((TEMPLATES / f"{name}.txt").read_text(encoding="utf-8"))
