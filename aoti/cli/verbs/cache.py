"""``aoti cache``: list and remove cached packages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from aoti.cli.options import json_option
from aoti.cli.show import show_json, show_table
from aoti.cli.terminal import say, summarize

if TYPE_CHECKING:
    from aoti.cache.cache import Entry


@click.group("cache")
def cache_group() -> None:
    """Show or shrink the cache of extracted packages.

    \b
    Example:
      aoti cache prune --max-size 2G
    """


@cache_group.command("list")
@json_option
def list_entries(as_json: bool) -> None:
    """List the entries of the cache, the least recently used first.

    \b
    Example:
      aoti cache list
    """
    from aoti.cache import cache

    entries = cache.entries()
    total = sum(entry.bytes for entry in entries)
    if as_json:
        document = {
            "location": str(cache.location()),
            "bytes": total,
            "entries": [
                {
                    "model": _model(entry),
                    "sha256": entry.key[:64],
                    "bytes": entry.bytes,
                    "last_used": datetime.fromtimestamp(entry.last_used, UTC).isoformat(),
                }
                for entry in entries
            ],
        }
        show_json(document)
        return
    if not entries:
        say(f"{cache.location()} is empty")
        return
    rows = [
        (
            _model(entry),
            entry.key[:12],
            f"{entry.bytes / 1e6:.1f} MB",
            f"{datetime.fromtimestamp(entry.last_used):%Y-%m-%d %H:%M}",
        )
        for entry in entries
    ]
    title = f"{cache.location()}: {total / 1e6:.1f} MB"
    show_table(title, ("model", "sha256", "size", "last used"), rows)


@cache_group.command()
@click.option(
    "--max-size",
    metavar="SIZE",
    default="0",
    help="How much may stay, for example 500M. Default: 0.",
)
@json_option
def prune(max_size: str, as_json: bool) -> None:
    """Remove the least recently used entries, except those in use.

    \b
    Example:
      aoti cache prune --max-size 2G
    """
    from aoti.cache import cache

    removed = cache.prune(cache.parse_size(max_size, "--max-size "))
    left = sum(entry.bytes for entry in cache.entries())
    if as_json:
        show_json({"removed_bytes": removed, "bytes": left})
    else:
        summarize(f"removed {removed / 1e6:.1f} MB, {left / 1e6:.1f} MB are left")


def _model(entry: Entry) -> str:
    return entry.key[64:].split("-", 2)[2]
