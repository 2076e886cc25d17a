"""The documents as a site: every page is in it, every link leads somewhere, and a reader's browser asks nobody else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

LOADS = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?P<src>[^"']+)|<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|preconnect|icon))[^>]*\bhref=["'](?P<href>[^"']+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_document_is_a_page_and_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for document in (ROOT / "docs").glob("*.md"):
        page = "index.html" if document.name == "README.md" else f"{document.stem}.html"
        assert (site / page).is_file()
        assert page == "index.html" or f'href="{page}"' in index, page


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    loaded = {
        found["src"] or found["href"] for page in pages for found in LOADS.finditer(page.read_text(encoding="utf-8"))
    }
    assert len(loaded) > len(pages)
    assert [one for one in loaded if re.match(r"(?:\w+:)?//", one)] == []
    styles = [
        text for style in site.rglob("*.css") for text in re.findall(r"url\(([^)]+)\)|@import", style.read_text())
    ]
    assert [one for one in styles if re.match(r"[\"']?(?:https?:)?//", one)] == []
