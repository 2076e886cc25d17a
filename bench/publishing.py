"""Publishes results: plots and JSON in a folder, tables in the document.

The document's tables stand between `<!-- claim -->` and `<!-- /claim -->`, and are made from the JSON beside it.
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.checkout import ROOT
from bench.result import Result
from bench.table import in_markdown

DOCUMENT = ROOT / "docs" / "BENCHMARKS.md"
PUBLISHED = ROOT / "docs" / "benchmarks"


def with_tables(text: str, results: Mapping[str, Result]) -> str:
    """Put each result's table into its place."""
    for claim, result in results.items():
        place = re.compile(rf"(<!-- {claim} -->\n).*?(<!-- /{claim} -->)", re.DOTALL)
        table = f"{in_markdown(result)}\n\n![{result.title}](benchmarks/{claim}.svg)\n"
        text = place.sub(partial(_filled, table), text)
    return text


def _filled(table: str, place: re.Match[str]) -> str:
    return f"{place[1]}\n{table}\n{place[2]}"


def publish(results: Mapping[str, Result], document: Path = DOCUMENT) -> None:
    """Write the tables into the document."""
    document.write_text(with_tables(document.read_text(), results))
