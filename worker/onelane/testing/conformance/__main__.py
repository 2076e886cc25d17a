"""`python -m onelane.testing.conformance module:application`: run the cases, and print what was answered wrongly."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from onelane.errors import EXIT_CONFIG, ConfigError
from onelane.importing import found
from onelane.testing.conformance.case import PROVIDERS, cases, settings_of
from onelane.testing.conformance.running import Result, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, and return the exit code: 1 if an answer was wrong."""
    given = _given(arguments)
    if given.channels:
        _print(json.dumps({name: {"provider": name, **settings_of(name)} for name in given.provider}))
        return 0
    try:
        results = _results(given)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    for result in results:
        for line in (*result.wrong, shown(result)):
            _print(line)
    return int(any(result.wrong for result in results))


def shown(result: Result) -> str:
    """Say what came of a provider's cases, in a line."""
    return f"{result.provider}: {result.cases} cases, {result.questions} requests, {len(result.wrong)} wrong"


def _results(given: Namespace) -> list[Result]:
    application = found(given.application, "application")[1]
    ids = found(given.ids, "--ids")[1] if given.ids else None
    chosen = [case for case in cases() if case.provider in given.provider]
    return run(application, chosen, lambda provider: given.url.format(provider=provider), ids)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _given(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(
        prog="python -m onelane.testing.conformance", description="Send providers' webhooks to a WSGI application."
    )
    parser.add_argument("application", nargs="?", help="module:function")
    parser.add_argument("--channels", action="store_true", help="print the channels that it must have, and end")
    parser.add_argument("--ids", help="module:function, which returns the ids of all messages that were taken")
    parser.add_argument("--provider", action="append", choices=PROVIDERS, help="these alone; by itself all")
    parser.add_argument("--url", default="https://bot.example/webhooks/{provider}", help="default: %(default)s")
    given = parser.parse_args(arguments)
    given.provider = given.provider or list(PROVIDERS)
    if not (given.application or given.channels):
        parser.error("the application is missing")
    return given


if __name__ == "__main__":
    sys.exit(main())
