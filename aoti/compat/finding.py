"""The result of one compatibility check: passed or failed, why, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aoti.errors import IncompatiblePackageError, PackageError


class Finding(NamedTuple):
    """The result of one check.

    Attributes
    ----------
    check : str
        The subject: ``platform``, ``isa``, ``device``, ``gpu``, ``file``, ``symbols``,
        ``versions``, ``weights``, ``kernels``, ``libraries`` or ``operators``.
    ok : bool
        Whether the check passed.
    message : str
        What the package needs and what this machine has.
    fix : str
        What to do if it failed: for example, the export option that would fit.
    """

    check: str
    ok: bool
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}" if self.fix else self.message


def require(findings: Iterable[Finding]) -> None:
    """Raise an error if a check failed.

    Raises
    ------
    IncompatiblePackageError, PackageError
        The message and fix of the first failed check. Those of the others are notes of the error.
        It is a PackageError if a file is damaged.
    """
    wrong = [finding for finding in findings if not finding.ok]
    if not wrong:
        return
    kind = PackageError if wrong[0].check == "file" else IncompatiblePackageError
    error = kind(str(wrong[0]))
    for finding in wrong[1:]:
        error.add_note(str(finding))
    raise error
