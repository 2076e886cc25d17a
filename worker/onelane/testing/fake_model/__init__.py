"""A fake model in a process of its own: it speaks OpenAI's Chat Completions, refuses what that refuses, costs nothing.

`python -m onelane.testing.fake_model --log FILE`, or the context manager `fake_model`. It is deterministic: it says
what it was told, and calls a tool that the user names. What it was asked stands in its journal, before it answers.
"""

from onelane.testing.fake_model.running import FakeModel, fake_model

__all__ = ["FakeModel", "fake_model"]
