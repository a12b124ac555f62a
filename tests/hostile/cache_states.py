"""What somebody or something does to the cache of extracted models before the next load."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner import State

from aoti import ConfigError


def code(entry: Path) -> Path:
    return next(entry.rglob("*.wrapper.so"))


def zeros(path: Path) -> None:
    """Other bytes of the same size and time of change, as far as a program can set it."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def unnoticed(path: Path) -> None:
    """The same, under a manifest that says that the file never changed."""
    zeros(path)
    (entry,) = (parent for parent in path.parents if (parent / "manifest.json").exists())
    manifest = json.loads((entry / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        facts[2] = (entry / name).stat().st_ctime_ns
    (entry / "manifest.json").write_text(json.dumps(manifest))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something else in place of a file or directory."""

    def change(path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return change


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


FILES: dict[str, Callable[[Path], Path]] = {
    "the code": code,
    "the table of constants": lambda entry: entry / "constants.json",
    "the manifest": lambda entry: entry / "manifest.json",
    "the metadata": lambda entry: next(entry.rglob("*_metadata.json")),
}
CHANGES: dict[str, Callable[[Path], None]] = {
    "zeros": zeros,
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "an empty object": lambda path: path.write_bytes(b"{}"),
    "deeply nested": lambda path: path.write_bytes(b"[" * 100_000),
    "gone": Path.unlink,
    "a link": instead(link),
    "a link to itself": instead(loop),
    "a named pipe": instead(os.mkfifo),
    "a directory": instead(Path.mkdir),
    "for others to write": lambda path: path.chmod(0o666),
    "of another user": lambda path: os.chown(path, 12345, 12345),
}
PLACES: dict[str, Callable[[Path], Path]] = {
    "the entry": lambda entry: entry,
    "the directory of the code": lambda entry: code(entry).parent,
    "what is written": lambda entry: entry.with_name(entry.name + ".partial"),
    "what is removed": lambda entry: entry.with_name(entry.name + ".old"),
    "the lock": lambda entry: entry.with_name(entry.name + ".lock"),
    "the index": lambda entry: entry.parent / "index",
}
KINDS: dict[str, Callable[[Path], Any]] = {
    "a file": Path.touch,
    "a directory": Path.mkdir,
    "a full directory": lambda path: path.mkdir() or (path / "x").touch(),
    "a link": link,
    "a link to itself": loop,
    "a named pipe": os.mkfifo,
}


def everything(entry: Path) -> None:
    shutil.rmtree(entry.parents[1])


def rows() -> Iterator[State]:
    """All rows."""
    for what, find in FILES.items():
        for how, change in CHANGES.items():
            yield State(f"{what}: {how}", lambda e, f=find, c=change: c(f(e)))
    for what, find in PLACES.items():
        for how, make in KINDS.items():

            def spoil(entry: Path, find: Any = find, make: Any = make) -> None:
                path = find(entry)
                if path.is_dir():
                    shutil.rmtree(path)
                (path.unlink if path.exists() else path.parent.stat)()
                make(path)

            yield State(f"{what}: {how}", spoil)
    pinned = {"sha256": "its own"}
    for how in ("zeros", "for others to write", "of another user"):
        yield State(
            f"the code of a pinned package: {how}", lambda e, c=CHANGES[how]: c(code(e)), pinned
        )
    yield State("the code of a pinned package: unnoticed", lambda e: unnoticed(code(e)), pinned)
    yield State("the code: unnoticed", lambda e: unnoticed(code(e)))
    yield State(
        "another library beside the code of a pinned package",
        lambda e: shutil.copy(code(e), code(e).with_name("libother.so")),
        pinned,
    )
    yield State("everything is gone", everything)
    yield State("an entry for others to write", lambda e: e.chmod(0o777))
    yield State("an entry of another user", lambda e: os.chown(e, 12345, 12345))
    yield State(
        "a copy",
        lambda e: (
            shutil.copytree(e, e.with_name("x")) and (shutil.rmtree(e), e.with_name("x").rename(e))
        ),
    )
    for umask in (0, 0o002, 0o027, 0o077):
        yield State(f"a umask of {umask:o}", lambda e, u=umask: (everything(e), os.umask(u)))
    yield State(
        "a location for others to write",
        lambda e: e.parent.chmod(0o777),
        error=ConfigError,
        words=("others may write to it (chmod go-w)", "AOTI_CACHE_DIR"),
    )
    yield State(
        "a location of another user",
        lambda e: os.chown(e.parent, 12345, 12345),
        error=ConfigError,
        words=("it belongs to another user (12345)", "AOTI_CACHE_DIR"),
    )
    yield State(
        "a directory above for others to write",
        lambda e: e.parents[1].chmod(0o777),
        error=ConfigError,
        words=("cache: others may write to it", "AOTI_CACHE_DIR"),
    )
    yield State(
        "a directory above of another user",
        lambda e: os.chown(e.parents[1], 12345, 12345),
        error=ConfigError,
        words=("cache: it belongs to another user", "AOTI_CACHE_DIR"),
    )


ROWS: tuple[State, ...] = tuple(rows())
