"""What a server answers when a model raises an error: HTTP's status and headers."""

from __future__ import annotations

from aoti.errors import (
    AotiError,
    InputError,
    ModelClosedError,
    ModelNotFoundError,
    QueueFullError,
    RunTimeoutError,
)

# All other errors are 500.
STATUSES: dict[type[AotiError], int] = {
    InputError: 400,
    ModelNotFoundError: 404,
    QueueFullError: 503,
    ModelClosedError: 503,
    RunTimeoutError: 504,
}
_RETRY_AFTER = "1"  # seconds


def status_of(error: AotiError) -> int:
    """HTTP's status for an error."""
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)


def headers_of(status: int) -> dict[str, str]:
    """The headers of an answer with this status."""
    return {"Retry-After": _RETRY_AFTER} if status == 503 else {}
