"""Texts that Postgres can store: it knows neither a NUL character nor half of a character, a lone surrogate."""


def is_storable(text: str) -> bool:
    """Whether a text can be a value in Postgres."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def storable(text: str) -> str:
    """Make of a text one that can be a value in Postgres."""
    return text.replace("\0", "").encode(errors="replace").decode()
