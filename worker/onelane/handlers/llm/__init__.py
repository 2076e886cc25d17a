"""A bot that asks a model: any service that speaks OpenAI's Chat Completions.

    HANDLER=onelane.handlers.llm:handle   with LLM_BASE_URL, LLM_API_KEY, LLM_MODEL, LLM_SYSTEM_PROMPT

or, with tools of its own, which are plain typed functions:

    from onelane.handlers.llm import ModelBot

    handle = ModelBot(tools=[opening_hours]).handle

Each answer of the model and each output of a tool is a step: a turn that runs again asks and pays for none twice.
"""

from onelane.handlers.llm.bot import ModelBot
from onelane.handlers.llm.client import ModelSettings

__all__ = ["ModelBot", "ModelSettings", "handle"]

handle = ModelBot().handle
