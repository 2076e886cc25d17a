"""How a channel's identifiers are spelled: the functions that `normalize_sender` names."""


def without_blanks(identifier: str) -> str:
    """Leave blanks out of a number; know nothing of what is no number."""
    if not identifier.startswith("+"):
        raise ValueError(identifier)
    return identifier.replace(" ", "")
