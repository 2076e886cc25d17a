"""Who may open the operator's pages, and what they may do there."""

from typing import Literal

from onelane.model import Value

Role = Literal["look", "act"]


class Operator(Value):
    """Somebody who is logged in: `g.operator` of a request under /ops."""

    name: str
    role: Role

    @property
    def may_act(self) -> bool:
        """Whether more than looking is allowed."""
        return self.role == "act"
