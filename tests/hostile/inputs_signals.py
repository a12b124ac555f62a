"""Calls that a signal's handler ends by raising, at any moment: nothing stays locked or is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from runner import Input, right

_dice = random.Random(0)
_armed: list[bool] = []


class Interrupted(BaseException):
    """What the handler raises, as Ctrl-C raises KeyboardInterrupt."""


def _interrupt(*_: Any) -> None:
    if _armed:
        _armed.clear()
        raise Interrupted


def under_a_signal(
    operation: Callable[[Any, Any], Any], longest: float
) -> Callable[[Any, Any], Any]:
    """A call that is interrupted within so many seconds, and then made again in peace."""

    def send() -> None:
        time.sleep(_dice.uniform(0, longest))
        os.kill(os.getpid(), signal.SIGUSR1)

    def call(model: Any, good: Any) -> Any:
        signal.signal(signal.SIGUSR1, _interrupt)
        sender = threading.Thread(target=send)
        sender.start()
        try:
            _armed.append(True)
            operation(model, good)
            _armed.clear()
        except Interrupted:
            pass
        sender.join()
        return operation(model, good)

    return call


def bound(model: Any, good: Any) -> Any:
    return model.bind(*good.args)().copy()


def submitted(model: Any, good: Any) -> Any:
    return model.submit(*good.args).result()


def canceled(model: Any, good: Any) -> Any:
    model.submit(*good.args).cancel()
    return model(*good.args)


ROWS: tuple[Input, ...] = (
    right("a call", "mlp", under_a_signal(lambda m, g: m(*g.args), 100e-6)),
    right("a flat run", "mlp", under_a_signal(lambda m, g: m.run(list(g.args))[0], 100e-6)),
    right("a submitted call", "mlp", under_a_signal(submitted, 300e-6)),
    right("a canceled call", "mlp", under_a_signal(canceled, 300e-6)),
    right("a bound call", "mlp", under_a_signal(bound, 200e-6)),
)
