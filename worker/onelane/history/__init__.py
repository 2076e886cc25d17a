"""A session's history for people and for models: typed lines, and the messages that three protocols make of them."""

from onelane.history.lines import Line, Role, ToolCall, line_of
from onelane.history.protocols import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "Line", "Protocol", "Role", "ToolCall", "line_of"]
