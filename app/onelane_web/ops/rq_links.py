"""Addresses of rq-dashboard's pages of jobs."""

from typing import Any, Final

from flask import url_for

from onelane_web.ops.rq_state import Row

PAGES_SHOWN: Final = 10


def jobs_url(queue: str, registry: str, per_page: int = 8, order: str = "asc", page: int = 1) -> str:
    """Return the address of a page of jobs."""
    return url_for(".jobs_overview", queue=queue, registry=registry, per_page=per_page, order=order, page=page)


def pagination(link: Any, total: int, per_page: int, page: int) -> Row:
    """Return the pages of a list as its script reads them; `link` makes the address of one."""
    last = max(1, -(-total // per_page))
    first_shown = max(1, min(page - PAGES_SHOWN // 2, last - PAGES_SHOWN + 1))
    shown = range(first_shown, min(last, first_shown + PAGES_SHOWN - 1) + 1)
    neighbours = {"prev_page": page - 1, "next_page": page + 1}
    return {
        "current_page": page,
        "num_pages": last,
        "pages_in_window": [{"number": number, "url": link(number)} for number in shown],
        "first_page": {"url": link(1)},
        "last_page": {"url": link(last)},
        **{name: {"url": link(number)} for name, number in neighbours.items() if 1 <= number <= last},
    }
