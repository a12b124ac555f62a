"""The exception tree: everything this package raises on purpose.

Every error is an `AotiError`, and every leaf is also the builtin that people already catch
(`FileNotFoundError`, `ValueError`, ...). The first line of a message is for people. Messages from
C++ follow as notes (PEP 678).
"""


class AotiError(Exception):
    """Base of every error that aoti raises on purpose."""


class PackageError(AotiError, ValueError):
    """The file is not a package that can be run: not a zip archive, damaged or incomplete."""


class PackageNotFoundError(AotiError, FileNotFoundError):
    """There is no file or directory at the given path."""


class ModelNotFoundError(AotiError, LookupError):
    """The package does not contain a model of that name."""


class IncompatiblePackageError(AotiError, RuntimeError):
    """The package is intact but cannot run here: device, platform, instructions, or symbols."""


class IntegrityError(PackageError):
    """The package is not the expected one: its digest differs."""


class EngineError(AotiError, ImportError):
    """An engine is not installed here, or cannot be loaded."""


class LibtorchError(EngineError):
    """No fitting libtorch was found, or one that does not fit is loaded already."""


class DeviceError(AotiError, ValueError):
    """The device does not exist, its name is not valid, or this build cannot use it."""


class InputError(AotiError, ValueError):
    """The arguments of a call are not what the model takes."""


class InputTypeError(InputError, TypeError):
    """An argument has the wrong type or dtype, or is in the wrong place."""


class ConstantError(AotiError, ValueError):
    """A weight has the wrong name, dtype, shape or device."""


class ConfigError(AotiError, ValueError):
    """A setting is not valid, out of range, or contradicts another one."""


class AmbiguousModelError(AotiError, LookupError):
    """A model name matches several models."""


class ModelClosedError(AotiError, RuntimeError):
    """The model was closed."""


class RunTimeoutError(AotiError, TimeoutError):
    """A run did not finish within its timeout."""


class QueueFullError(AotiError, RuntimeError):
    """The queue of waiting runs is full."""


class ExecutionError(AotiError, RuntimeError):
    """The compiled model or libtorch failed."""


class ExportError(AotiError, RuntimeError):
    """A module cannot be exported: tracing, compiling, writing or verifying it fails."""


class SelfTestError(AotiError, RuntimeError):
    """A model does not compute the values here that it computed at the export."""


def reason(error: OSError) -> str:
    """The message of a system error: without its number, and with the file that it is about."""
    why = error.strerror or str(error) or type(error).__name__
    return f"{why}: {error.filename!s:.200}" if error.filename else why
