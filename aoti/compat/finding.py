"""What a check found: one thing that was looked at, in order or not, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aoti.errors import IncompatiblePackageError, PackageError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    check : str
        What it is about: ``platform``, ``isa``, ``device``, ``gpu``, ``file``, ``symbols``,
        ``versions``, ``weights``, ``libraries`` or ``operators``.
    ok : bool
        Whether the model can run as far as this goes.
    message : str
        What the package wants and what this machine has.
    fix : str
        What to do, where it is not in order: the export option that would fit, for example.
    """

    check: str
    ok: bool
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}" if self.fix else self.message


def require(findings: Iterable[Finding]) -> None:
    """Raise for findings that are not in order.

    Raises
    ------
    IncompatiblePackageError, PackageError
        With the first one's message and fix; all others that are not in order are its notes. It is
        a PackageError if the file is damaged.
    """
    wrong = [finding for finding in findings if not finding.ok]
    if not wrong:
        return
    kind = PackageError if wrong[0].check == "file" else IncompatiblePackageError
    error = kind(str(wrong[0]))
    for finding in wrong[1:]:
        error.add_note(str(finding))
    raise error
