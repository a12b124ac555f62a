"""Files that are hashed first and read afterwards, where both must see the same bytes."""

from __future__ import annotations

import io
import os
from typing import IO, TYPE_CHECKING

from aoti.errors import PackageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BLOCK = 256 << 10  # bytes
_BLOCKS = 10_000  # at most: a hash keeps 250 bytes of each


class Hash:
    """SHA-256 of a file's bytes, and what it takes to recognize every block of them again.

    SHA-256 reads a message from front to back. The hash is copied before each block. A block that
    is read later continues that copy, and must arrive at the digest that the block arrived at
    before. To pass another block for it takes a second preimage of SHA-256.

    Parameters
    ----------
    file : binary file
        It is read from its start to its end.

    Attributes
    ----------
    size : int
        The number of bytes that were hashed.
    digest : str
        Their SHA-256, in hex.
    block_size : int
        The size of a block in bytes; the last block may be smaller.
    """

    def __init__(self, file: IO[bytes]) -> None:
        from hashlib import sha256  # loads OpenSSL, which most starts do not need

        self.block_size = max(_BLOCK, file.seek(0, io.SEEK_END) // _BLOCKS)
        self._states = [sha256()]
        self.size = 0
        file.seek(0)
        while block := _read(file, self.block_size):
            self.size += len(block)
            self._states.append(self._states[-1].copy())
            self._states[-1].update(block)
        self.digest = self._states[-1].hexdigest()

    def block(self, file: IO[bytes], number: int) -> bytes | None:
        """Read a block again; None if it differs."""
        start = number * self.block_size
        file.seek(start)
        found = _read(file, min(self.block_size, self.size - start))
        state = self._states[number].copy()
        state.update(found)
        return found if state.digest() == self._states[number + 1].digest() else None


def hashed(file: IO[bytes], of: Hash, name: str, *, owned: bool = False) -> IO[bytes]:
    """The bytes of a file that was hashed.

    Reading raises PackageError, with `name` in its message, where the bytes have changed since.
    Closing the result closes `file` too if that is `owned`.
    """
    return io.BufferedReader(_Hashed(file, of, name, owned=owned), _BLOCK)


class _Hashed(io.RawIOBase):
    def __init__(self, file: IO[bytes], of: Hash, name: str, *, owned: bool) -> None:
        self._file, self._hash, self._name, self._owned = file, of, name, owned
        self._position = 0
        self._number, self._block = -1, b""  # the last one that was compared

    def close(self) -> None:
        if self._owned:
            self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._hash.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._position >= self._hash.size:
            return 0
        number, offset = divmod(self._position, self._hash.block_size)
        if number != self._number:
            block = self._hash.block(self._file, number)
            if block is None:
                raise PackageError(f"{self._name} was changed while it was read; load it again")
            self._number, self._block = number, block
        with memoryview(buffer).cast("B") as view:
            count = min(len(view), len(self._block) - offset)
            view[:count] = memoryview(self._block)[offset : offset + count]
        self._position += count
        return count


def _read(file: IO[bytes], size: int) -> bytes:
    """Read `size` bytes, or all that are left. A file object of the caller may give less."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
