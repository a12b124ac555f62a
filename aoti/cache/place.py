"""A directory that extracted models are kept in: whether it can be used, and what to do if not."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aoti.errors import AotiError, ConfigError
from aoti.package.package import Package

_NOT_THE_PLACE = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(frozen=True, slots=True)
class Place:
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
            self.path.mkdir(mode=0o700, parents=parents)
        self.check()
        if os.statvfs(self.path).f_flag & os.ST_NOEXEC:
            raise self.refusal(
                "its file system is mounted noexec, and models are code",
                "on a file system that code may be run from",
            )

    def check(self) -> None:
        """Refuse a directory that does not exist, or that another user can write to."""
        status = self.path.lstat()
        ours = "that belongs to you"
        if not stat.S_ISDIR(status.st_mode):
            raise self.refusal("it is not a directory", ours)
        if status.st_uid not in (os.geteuid(), 0):
            raise self.refusal(f"it belongs to another user ({status.st_uid})", ours)
        if status.st_mode & 0o022:
            raise self.refusal("others may write to it (chmod go-w)", ours)

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


def _is_below(name: object, path: Path | None) -> bool:
    """Whether an error of the file system is about the package."""
    known = path is not None and isinstance(name, (str, os.PathLike))
    return known and Path(name).is_relative_to(path)  # type: ignore[arg-type]
