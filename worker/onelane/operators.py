"""Who may open the operator's pages: a name, the hash of a password, a role.

The hash is scrypt, in the form that Werkzeug writes too: `scrypt:<n>:<r>:<p>$<salt>$<hex>`.
"""

import hmac
import re
from hashlib import scrypt
from secrets import token_urlsafe
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

COST: Final = 2**15
COST_MAX: Final = 2**18
BLOCK, PARALLEL = 8, 1
MEMORY_OF_A_BLOCK: Final = 132
FORM: Final = re.compile(r"scrypt:(\d{1,6}):(\d{1,2}):(\d{1,2})\$([A-Za-z0-9_-]{8,64})\$([0-9a-f]{128})")
PASSWORD_MIN: Final = 8

Role = Literal["look", "act"]


def _hash(text: str) -> str:
    found = FORM.fullmatch(text)
    if found is None or not _is_bearable(*map(int, found.groups()[:3])):
        raise ValueError("must be what `onelane ops hash` prints")
    return text


def _is_bearable(cost: int, block: int, parallel: int) -> bool:
    """Whether scrypt takes these, and no more than 256 MB."""
    return 1 < cost <= COST_MAX and cost & (cost - 1) == 0 and block == BLOCK and parallel == PARALLEL


OpsName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s:][^\r\n\t\x00]*$")]
PasswordHash = Annotated[str, AfterValidator(_hash), Field(repr=False)]


class OpsUser(BaseModel):
    """One operator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    password: PasswordHash
    role: Role = "look"
    """`look` sees everything but texts; `act` may do everything."""


def hashed(password: str, salt: str | None = None, *, cost: int = COST) -> str:
    """Hash a password; without a salt, with one of its own."""
    salt = salt or token_urlsafe(12)
    return f"scrypt:{cost}:{BLOCK}:{PARALLEL}${salt}${_digest(password, salt, cost).hex()}"


def is_password(given: str, wanted: str) -> bool:
    """Whether `given` is the password that was hashed to `wanted`."""
    cost, _, _, salt, digest = _parts(wanted)
    return hmac.compare_digest(_digest(given, salt, int(cost)).hex(), digest)


def _parts(wanted: str) -> tuple[str, ...]:
    found = FORM.fullmatch(wanted)
    assert found is not None  # noqa: S101 - the settings refuse any other
    return found.groups()


def _digest(password: str, salt: str, cost: int) -> bytes:
    return scrypt(
        password.encode(errors="surrogatepass"),
        salt=salt.encode(),
        n=cost,
        r=BLOCK,
        p=PARALLEL,
        maxmem=MEMORY_OF_A_BLOCK * cost * BLOCK * PARALLEL,
    )
