"""Where Postgres may be, by its address in the settings: each address of each host that it names."""

import os
import time
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from onelane.addresses import addresses_of

Place = dict[str, Any]
"""Arguments of the driver's `connect`, which looks nothing up any more."""
PARTS: Final = ("host", "hostaddr", "port")
SILENT: Final = "no name server answers"


def places_of(url: str, within_s: float) -> list[Place]:
    """List the places, in their order; raise psycopg.OperationalError if none is known within so many seconds."""
    asked = conninfo_to_dict(url)
    named = {part: str(asked.get(part) or os.environ.get(f"PG{part.upper()}", "")) for part in PARTS}
    hosts, ports = named["host"].split(","), named["port"].split(",")
    if named["hostaddr"] or len(ports) not in {1, len(hosts)}:
        return [{}]  # there is nothing to look up, or nothing that the driver would take
    ends, places, failure = time.monotonic() + within_s, [], ""
    for host, port in zip(hosts, ports * (len(hosts) // len(ports)), strict=True):
        try:
            places += _at(host, port, ends - time.monotonic())
        except TimeoutError:
            failure = SILENT
        except OSError:
            failure = failure or "no host has that name"
    if not places:
        raise psycopg.OperationalError(failure)
    return places


def _at(host: str, port: str, within_s: float) -> list[Place]:
    """List a host's places; a folder, or no host at all, is a socket of this machine."""
    place = {name: part for name, part in (("host", host), ("port", port)) if part}
    if not host or host.startswith("/"):
        return [place]
    return [{**place, "hostaddr": address} for address in addresses_of(host, within_s)]
