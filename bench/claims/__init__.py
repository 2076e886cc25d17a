"""The claims, one file each: what is measured, beside whom, and what was to be reached."""

from collections.abc import Callable, Mapping
from typing import Final

from bench.claims import cost, drain, fairness, lanes, live, memory, skewed_drain, slow_handlers, takeover, webhook
from bench.plan import Plan
from bench.result import Result

CLAIMS: Final[Mapping[str, Callable[[Plan], Result]]] = {
    claim.NAME: claim.measure
    for claim in (drain, skewed_drain, live, webhook, fairness, slow_handlers, lanes, memory, cost, takeover)
}
"""Each claim's script by its name, in the order of the document."""
