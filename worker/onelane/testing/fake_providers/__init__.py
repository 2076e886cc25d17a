"""Fakes of the providers' sending APIs, in a process of their own, which outlives the service and judges it.

`python -m onelane.testing.fake_providers --port 0 --log FILE --callback URL` with CHANNELS in the environment, or the
context manager `fake_providers`. The API of each channel is below its name: `http://127.0.0.1:<port>/<channel>`. What
was received and what became visible to users stands in the journal, before it is answered: see `journal`. What goes
wrong is told to `/.control/`: see `faults` and `control`.

What a provider does is from docs/CHANNELS.md and the providers' own pages; none of it was tried against a real one.
"""

from onelane.testing.fake_providers.faults import FAULTS, Fault
from onelane.testing.fake_providers.received import Received, Visible
from onelane.testing.fake_providers.running import FakeProviders, fake_providers

__all__ = ["FAULTS", "FakeProviders", "Fault", "Received", "Visible", "fake_providers"]
