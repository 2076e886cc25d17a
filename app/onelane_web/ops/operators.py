"""Who may open the operator's pages, and what they may do there."""

import hmac
from hashlib import sha256
from typing import NamedTuple

from onelane.config import Settings
from onelane.model import Value
from onelane.operators import Role, hashed, is_password

FIXED_COST = 2**14
"""For the one password that the settings have in plain: what it is worth is known to who reads them."""


class Operator(Value):
    """Somebody who is logged in: `g.operator` of a request under /ops."""

    name: str
    role: Role

    @property
    def may_act(self) -> bool:
        """Whether more than looking is allowed."""
        return self.role == "act"


class _Known(NamedTuple):
    """An operator of the settings."""

    operator: Operator
    password: str
    """Hashed."""


class Operators:
    """All operators of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._key = settings.secret_key.get_secret_value() if settings.secret_key else "onelane"
        self._known = {
            name: _Known(Operator(name=name, role=user.role), user.password)
            for name, user in settings.ops_users.items()
        }
        if settings.ops_password is not None:
            salt = sha256(f"{self._key} {settings.ops_user}".encode()).hexdigest()[:20]
            password = hashed(settings.ops_password.get_secret_value(), salt, cost=FIXED_COST)
            self._known[settings.ops_user] = _Known(Operator(name=settings.ops_user, role="act"), password)
        self._nobodys = next(iter(self._known.values())).password

    def check(self, name: str, password: str) -> Operator | None:
        """Return the operator whose name and password these are; it takes as long for a name that nobody has."""
        known = self._known.get(name)
        is_right = is_password(password, known.password if known else self._nobodys)
        return known.operator if known and is_right else None

    def credential(self, name: str) -> bytes:
        """Return what stands for a name and its password: another, once the password or SECRET_KEY is changed."""
        return hmac.digest(self._key.encode(), f"{name} {self._known[name].password}".encode(), "sha256")

    def still(self, name: str, credential: bytes) -> Operator | None:
        """Return the operator who has logged in under these, unless the settings have changed since."""
        if name not in self._known or not hmac.compare_digest(credential, self.credential(name)):
            return None
        return self._known[name].operator
