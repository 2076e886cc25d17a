"""A new bot's folder: what `onelane init` writes, and why it refuses."""

from onelane.dev.init.project import create
from onelane.dev.init.providers import PROVIDERS

__all__ = ["PROVIDERS", "create"]
