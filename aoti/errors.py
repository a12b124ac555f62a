"""The exception tree: everything this package raises on purpose.

Every error is an `AotiError`, and every leaf is also the builtin that people already catch
(`FileNotFoundError`, `ValueError`, ...). The first line of a message is for people; what the C++
side had to say follows as a note (PEP 678).
"""


class AotiError(Exception):
    """Base of every error that aoti raises on purpose."""


class PackageError(AotiError, ValueError):
    """The file is not a package that can be run: not a zip, damaged, incomplete or hostile."""


class PackageNotFoundError(AotiError, FileNotFoundError):
    """There is no file or directory at the given path."""


class ModelNotFoundError(AotiError, LookupError):
    """The package holds no model of that name."""


class IncompatiblePackageError(AotiError, RuntimeError):
    """The package is sound but cannot run here: device, platform, ISA, architecture, symbols."""


class IntegrityError(PackageError):
    """The package is not the one that was asked for: its digest differs."""


class LibtorchError(AotiError, ImportError):
    """No libtorch that fits was found, or one that does not fit is in the way."""


class DeviceError(AotiError, ValueError):
    """The device does not exist, is not spelled right, or this build cannot use it."""


class InputError(AotiError, ValueError):
    """The arguments of a call are not what the model takes."""


class InputTypeError(InputError, TypeError):
    """An argument is of the wrong type or dtype, or stands at the wrong place."""


class ConstantError(AotiError, ValueError):
    """A weight has the wrong name, dtype, shape or device."""


class ConfigError(AotiError, ValueError):
    """A setting is not understood, out of range, or contradicts another one."""


class AmbiguousModelError(AotiError, LookupError):
    """A model name stands for several models."""


class ModelClosedError(AotiError, RuntimeError):
    """The model was closed."""


class RunTimeoutError(AotiError, TimeoutError):
    """A run did not end in the time it was given."""


class QueueFullError(AotiError, RuntimeError):
    """Too many runs are waiting already."""


class ExecutionError(AotiError, RuntimeError):
    """The compiled model, or libtorch under it, failed."""


class ExportError(AotiError, RuntimeError):
    """A module cannot be exported: tracing, compiling, writing or verifying it fails."""


class SelfTestError(AotiError, RuntimeError):
    """A model does not give the values here that it gave where it was exported."""


def reason(error: OSError) -> str:
    """What the system says, for people: without its number, with the file that it is about."""
    why = error.strerror or str(error) or type(error).__name__
    return f"{why}: {error.filename!s:.200}" if error.filename else why
