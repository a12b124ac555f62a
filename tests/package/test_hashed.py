"""What was hashed is what is read: in any order, in any pieces, and never anything else."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
import zlib

import pytest

import aoti
from aoti import PackageError
from aoti.package.hashed import Hash, hashed

MEGABYTE = 1 << 20


class Slow(io.BytesIO):
    """A file object that gives less than it was asked for."""

    def read(self, size=-1):
        return super().read(min(size, 1000) if size and size > 0 else size)


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 3 * MEGABYTE + 17])
@pytest.mark.parametrize("kind", [io.BytesIO, Slow])
def test_bytes_and_digest_are_those_of_the_file(size, kind):
    data = random.Random(size).randbytes(size)
    file = kind(data)
    of = Hash(file)
    assert (of.size, of.digest) == (size, hashlib.sha256(data).hexdigest())
    reader = hashed(file, of, "m.pt2")
    assert reader.read() == data
    dice = random.Random(1)
    for _ in range(50):
        start = dice.randint(0, size)
        count = dice.choice((0, 1, 100, MEGABYTE))
        assert reader.seek(start) == start
        assert reader.read(count) == data[start : start + count]
    assert reader.seek(-min(size, 5), io.SEEK_END) == size - min(size, 5)


@pytest.mark.parametrize("change", ["first", "last", "cut", "grown"])
def test_what_changes_afterwards_is_not_read(change):
    data = bytearray(random.Random(0).randbytes(2 * MEGABYTE))
    file = io.BytesIO(data)
    reader = hashed(file, Hash(file), "m.pt2")
    place = {"first": 0, "last": len(data) - 1, "cut": len(data) - 100, "grown": len(data)}[change]
    file.seek(place)
    if change == "cut":
        file.truncate()
    else:
        file.write(b"x")
    if change == "grown":
        assert reader.read() == data
        return
    with pytest.raises(PackageError, match=r"m\.pt2 was changed while it was read; load it again"):
        reader.read()


def forge(head: bytes, crc: int) -> bytes:
    """Append the four bytes that give a wanted CRC-32: its register, run backwards."""
    table = [zlib.crc32(bytes([n ^ 0xFF])) ^ 0xFF000000 for n in range(256)]
    tops = {entry >> 24: n for n, entry in enumerate(table)}
    wanted, places = crc ^ 0xFFFFFFFF, []
    for _ in range(4):
        places.append(tops[wanted >> 24])
        wanted = (wanted ^ table[places[-1]]) << 8 & 0xFFFFFFFF
    register, tail = zlib.crc32(head) ^ 0xFFFFFFFF, b""
    for place in reversed(places):
        tail += bytes([(register ^ place) & 0xFF])
        register = table[place] ^ register >> 8
    return head + tail


def test_another_content_with_the_same_checksum_is_not_extracted(package_of, tmp_path):
    path = package_of(b"genuine code" * 100_000)
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[0]
        info = archive.getinfo(name)
    other = forge((b"forged code!" * 100_000)[: info.file_size - 4], info.CRC)
    data = path.read_bytes()
    with aoti.Package(path) as package:
        assert package.digest
        path.write_bytes(data.replace(b"genuine code" * 100_000, other, 1))
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None  # only the digest tells
        with pytest.raises(PackageError, match="changed while it was read"):
            package.extract("model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_gives_what_was_hashed(package_of, tmp_path):
    with zipfile.ZipFile(package_of(b"genuine")) as archive:
        archive.extractall(tmp_path / "d")
    code = next((tmp_path / "d").rglob("*.so"))
    with aoti.Package(tmp_path / "d/m") as package:
        digest = package.digest
        code.write_bytes(b"forged!")
        assert package.digest == digest
        with pytest.raises(PackageError, match="changed while it was read"):
            package.extract("model", tmp_path / "out")


def test_documents_that_were_read_before_are_read_again(package_of):
    path = package_of(b"1")

    def described(text: str) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("m/data/aotinductor/model/a.wrapper.so", b"1")
            archive.writestr("m/data/aotinductor/model/a.wrapper_metadata.json", text)

    described('{"a": "1"}')
    with aoti.Package(path) as package:
        assert package.metadata() == {"a": "1"}
        content = path.read_bytes()
        described('{"a": "2"}')
        assert len(path.read_bytes()) == len(content)
        assert package.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert package.metadata() == {"a": "2"}


def test_a_block_is_read_once_for_many_pieces():
    counted: list[int] = []

    class Counting(io.BytesIO):
        def read(self, size=-1):
            counted.append(size)
            return super().read(size)

    data = random.Random(5).randbytes(1 << 20)
    file = Counting(data)
    reader = hashed(file, Hash(file), "m.pt2").raw
    counted.clear()
    while reader.read(10_000):
        pass
    assert sum(counted) == len(data)
