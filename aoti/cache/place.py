"""A directory that extracted models are kept in: whether it can be used, and what to do if not."""

from __future__ import annotations

import contextlib
import errno
import functools
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aoti.errors import AotiError, ConfigError
from aoti.package.package import Package

_OTHERS_WRITE = 0o022
_NOT_THE_PLACE = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Place(NamedTuple):
    """A directory for extractions, and the environment variable that sets it."""

    path: Path
    variable: str

    def refusal(self, why: str, wanted: str) -> ConfigError:
        """An error that names the directory, what is wrong with it, and what to do."""
        return ConfigError(
            f"cannot keep extracted models in {self.path}: {why}; "
            f"set {self.variable} to a directory {wanted}"
        )

    def make(self, *, parents: bool) -> None:
        """Create the directory if it does not exist; refuse one that code cannot be loaded from."""
        with contextlib.suppress(FileExistsError):
            try:
                self.path.mkdir(mode=0o700)
            except FileNotFoundError:
                if not parents:
                    raise
                # Path.mkdir gives missing parents the mode that the umask leaves.
                missing = [parent for parent in self.path.parents if not parent.exists()]
                for path in (*reversed(missing), self.path):
                    with contextlib.suppress(FileExistsError):
                        path.mkdir(mode=0o700)
        self.check()
        if os.statvfs(self.path).f_flag & os.ST_NOEXEC:
            raise self.refusal(
                "its file system is mounted noexec, and models are code",
                "on a file system that code may be run from",
            )

    def check(self) -> None:
        """Refuse a directory that does not exist, or that another user can write to or replace."""
        status = self.path.lstat()
        ours = "that belongs to you"
        if not stat.S_ISDIR(status.st_mode):
            raise self.refusal("it is not a directory", ours)
        if why := others_control(status):
            raise self.refusal(why, ours)
        for step, status in _leading_to(str(self.path)):
            if why := _others_replace(status):
                raise self.refusal(f"{step}: {why}", "below directories that only you can change")

    def missing(self, needed: int) -> int:
        """How many of `needed` bytes do not fit."""
        status = os.statvfs(self.path)
        return max(0, needed - status.f_bavail * status.f_frsize)

    def too_small(self, missing: int) -> ConfigError:
        """An error for a directory with `missing` bytes too little."""
        return self.refusal(f"{missing} more bytes are needed than are free", "with enough room")

    @contextlib.contextmanager
    def named_in_errors(self, package: Package | None = None) -> Iterator[None]:
        """Turn errors of the file system into a ConfigError that names the directory."""
        try:
            yield
        except OSError as error:
            if isinstance(error, AotiError):
                raise
            if package is not None:
                if _is_below(error.filename, package.path):
                    raise
                error.add_note(f"while extracting {package.name} to {self.path}")
            if error.errno in _NOT_THE_PLACE:
                raise
            why = error.strerror or str(error)
            raise self.refusal(why, "with enough room that you can write to") from error


def others_control(status: os.stat_result) -> str | None:
    """Why another user can change a file or directory: "it belongs to ..."; None if none can."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to another user ({status.st_uid})"
    if status.st_mode & _OTHERS_WRITE:
        return "others may write to it (chmod go-w)"
    return None


def _others_replace(status: os.stat_result) -> str | None:
    """Why another user can replace what is in a directory, or where a link leads to."""
    mode = status.st_mode
    if status.st_uid not in (os.geteuid(), 0, _unmapped_user()):
        return f"it belongs to another user ({status.st_uid})"
    if stat.S_ISLNK(mode) or mode & stat.S_ISVTX or not mode & _OTHERS_WRITE:
        return None
    if not mode & stat.S_IWOTH and _is_own_group(status.st_gid):
        return None
    return "others may write to it (chmod go-w)"


@functools.cache
def _unmapped_user() -> int | None:
    """The owner that a user namespace shows for all users outside of it, the real root included."""
    with contextlib.suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            return int(Path("/proc/sys/kernel/overflowuid").read_text())
    return None


def _is_own_group(group: int) -> bool:
    """Whether a group has this user as its only member, as many systems make one per user."""
    try:
        user, found = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == user and set(found.gr_mem) <= {user}


def _leading_to(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """What decides where a path leads to: the directories above it, and the links in it."""
    # With texts, because every load does this: pathlib takes four times as long.
    at, rest = "/", path.split("/")[::-1]
    yield at, os.lstat(at)
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = at.rpartition("/")[0] or "/"
            continue
        step = f"{at.rstrip('/')}/{part}"
        status = os.lstat(step)
        if stat.S_ISLNK(status.st_mode):
            target = str(Path(step).readlink())
            at = "/" if target.startswith("/") else at
            rest += target.split("/")[::-1]
        elif rest:
            at = step
        else:
            return  # the path itself
        yield step, status


def _is_below(name: object, path: Path | None) -> bool:
    """Whether an error of the file system is about the package."""
    known = path is not None and isinstance(name, (str, os.PathLike))
    return known and Path(name).is_relative_to(path)  # type: ignore[arg-type]
