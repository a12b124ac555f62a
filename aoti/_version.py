"""The version: for the build, the engine and the users of aoti."""

__version__ = "0.1.0"
