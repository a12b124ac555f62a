from threading import Condition


def wait(condition: Condition, timeout: float | None=None) -> bool: ...
