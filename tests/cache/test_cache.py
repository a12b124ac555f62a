"""The shared cache: one entry for one content, its index, its bound, its location."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import subprocess
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from aoti import ConfigError, Package, PackageError
from aoti.cache import cache, digests

pytestmark = pytest.mark.usefixtures("place")
SO, BLOB = "a.wrapper.so", "a_weights.blob"


def cut(directory: Path):
    with next(directory.rglob(BLOB)).open("r+b") as file:
        file.truncate(0)


HOLD = """
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model")
print(held.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(start):
    """Start a process that uses a package until the end; give the extraction's path."""

    @contextlib.contextmanager
    def holder(path: Path):
        process = start(HOLD, path, stdin=subprocess.PIPE)
        try:
            yield Path(process.stdout.readline().strip())
        finally:
            process.communicate(timeout=30)
        assert process.returncode == 0

    return holder


def test_an_entry_stays_and_is_used_again(package_of, place, extract, content):
    first = extract(package_of(b"1"))
    assert content(first) == b"1"
    inode = first.path.stat().st_ino
    first.release()
    first.release()  # harmless
    renamed = package_of(b"1").rename(place.parents[1] / "other.pt2")
    second = extract(renamed)
    assert (second.path, second.path.stat().st_ino) == (first.path, inode)
    with Package(renamed) as package:
        assert second.digest == package.digest
    assert second.directory == place / second.key
    assert [entry.key for entry in cache.entries()] == [second.key]


def test_processes_share_entries(package_of, extract, holder):
    path = package_of(b"1")
    with holder(path) as theirs:
        mine = extract(path)
        assert mine.path == theirs
        assert theirs.stat().st_ino == mine.path.stat().st_ino


def test_only_this_user_can_look_inside(package_of, place, extract):
    extract(package_of(b"1"))
    assert place.stat().st_mode & 0o777 == 0o700


def test_what_was_damaged_in_use_by_others_is_replaced_and_not_written_to(
    package_of, extract, content, holder
):
    path = package_of(b"1")
    with holder(path) as theirs, next(theirs.rglob(SO)).open("rb") as mapped:
        cut(theirs.parent)
        mine = extract(path)
        assert mine.path == theirs
        assert content(mine) == b"1"
        assert not os.path.samestat(os.fstat(mapped.fileno()), next(theirs.rglob(SO)).stat())
        assert mapped.read() == b"1"


# -- the index of digests --------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch):
    """The packages whose digests were computed to find an entry."""
    computed = []
    original = Package.digest.fget
    write = cache.write

    def digest(self):
        computed.append(self.path.name)
        return original(self)

    def write_unseen(package, key, directory):
        write(package, key, directory)
        computed.pop()  # it verifies what it wrote

    monkeypatch.setattr(Package, "digest", property(digest))
    monkeypatch.setattr(cache, "write", write_unseen)
    return computed


@pytest.fixture
def later(monkeypatch):
    """A clock that is an hour ahead: all files are old."""
    real = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: real() + 3600 * 10**9)


def digest(path):
    with Package(path) as package:
        return cache.digest(package)


def test_an_unchanged_file_is_hashed_once(package_of, place, hashed, later, extract):
    path = package_of(b"1")
    first = extract(path)
    assert extract(path).digest == first.digest
    assert digest(path) == first.digest
    assert hashed == ["m.pt2"]
    assert len(list((place / "index").iterdir())) == 1


def test_a_digest_that_was_just_computed_is_taken(package_of, hashed, extract):
    path = package_of(b"1")
    first = extract(path)
    hashed.clear()
    assert extract(path, verified=first.digest).path == first.path
    assert hashed == []


def test_an_entry_never_stands_under_the_digest_of_another_content(package_of, extract):
    with pytest.raises(PackageError, match="changed while it was read"):
        extract(package_of(b"1"), verified="0" * 64)
    assert cache.entries() == []


def test_a_file_that_is_too_young_to_tell_is_hashed_again(package_of, place, hashed, extract):
    path = package_of(b"1")
    extract(path)
    extract(path)
    assert len(hashed) == 2
    assert not (place / "index").exists()


def test_a_changed_file_is_hashed_again(package_of, hashed, later, extract, content):
    path = package_of(b"1")
    before = path.stat()
    first = extract(path)
    with path.open("r+b") as file:  # the same inode and size
        file.write(package_of(b"2", name="other.pt2").read_bytes())
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    second = extract(path)
    assert first.digest != second.digest
    assert content(second) == b"2"
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the ctime tells
    assert digest(path) == second.digest
    assert len(hashed) == 3


def test_a_file_that_changes_while_it_is_hashed_is_not_indexed(package_of, place, later, extract):
    path = package_of(b"1")
    extract(package_of(b"2", name="other.pt2"))

    class Changing(Package):
        @property
        def digest(self):
            found = super().digest
            os.utime(path)
            return found

    with Changing(path) as package:
        cache.digest(package)
    assert len(list((place / "index").iterdir())) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '["x"]', "[[], 1, {}]"])
def test_a_damaged_index_is_ignored(package_of, place, later, hashed, text, extract):
    path = package_of(b"1")
    extract(path)
    (record,) = (place / "index").iterdir()
    record.write_text(text)
    extract(path)
    extract(path)
    assert len(hashed) == 2  # and it was mended


def test_an_index_that_cannot_be_written_is_ignored(
    package_of, place, later, hashed, extract, content
):
    place.mkdir(mode=0o700, parents=True)
    (place / "index").write_text("")
    assert content(extract(package_of(b"1"))) == b"1"
    assert content(extract(package_of(b"1"))) == b"1"
    assert len(hashed) == 2


def test_others_cannot_plant_digests(package_of, place, later, hashed, extract):
    path = package_of(b"1")
    extract(path)
    place.chmod(0o777)
    digest(path)
    assert len(hashed) == 2


def test_the_index_is_bounded(package_of, place, later, monkeypatch, extract):
    monkeypatch.setattr(digests, "FILES", 3)
    paths = [package_of(b"%d" % i, name=f"{i}.pt2") for i in range(6)]
    for i, path in enumerate(paths):
        extract(path)
        identity = path.stat()
        os.utime(place / f"index/{identity.st_dev:x}-{identity.st_ino:x}.json", (i, i))
    cache.prune(1 << 30)
    kept = {json.loads(file.read_text())[1] for file in (place / "index").iterdir()}
    assert kept == {path.stat().st_ino for path in paths[3:]}


def test_directories_have_digests_too(package_of, tmp_path, hashed, extract, content):
    with zipfile.ZipFile(package_of(b"1")) as archive:
        archive.extractall(tmp_path / "unpacked")
    for _ in range(2):
        assert content(extract(tmp_path / "unpacked/m")) == b"1"
    assert len(hashed) == 2


# -- the size bound --------------------------------------------------------------------------------


def used_at(extraction, seconds: float):
    os.utime(extraction.directory / "manifest.json", (seconds, seconds))


def keys() -> list[str]:
    return [entry.key for entry in cache.entries()]


def test_the_least_recently_used_go_first(package_of, place, extract):
    held = [extract(package_of(b"%d" % i * 1000, name=f"{i}.pt2")) for i in range(4)]
    for last_use, i in enumerate((2, 0, 3, 1)):
        used_at(held[i], last_use)
        held[i].release()
    assert keys() == [held[i].key for i in (2, 0, 3, 1)]
    size = cache.entries()[0].bytes
    assert size > 2000
    assert cache.prune(4 * size) == 0
    assert cache.prune(4 * size - 1) == size
    assert keys() == [held[i].key for i in (0, 3, 1)]
    extract(place.parents[1] / "0.pt2").release()  # asking for it is using it
    assert cache.prune(size) == 2 * size
    assert keys() == [held[0].key]
    assert cache.prune(0) == size
    assert cache.entries() == []


def test_what_is_in_use_stays(package_of, extract, content, holder):
    mine = extract(package_of(b"1", name="mine.pt2"))
    again = extract(package_of(b"1", name="mine.pt2"))
    with holder(package_of(b"2", name="theirs.pt2")) as theirs:
        extract(package_of(b"3", name="nobodys.pt2")).release()
        mine.release()
        assert cache.prune(0) > 0
        assert {again.key, theirs.parent.name} == set(keys())
        assert content(again) == b"1"
    again.release()
    assert cache.prune(0) > 0
    assert keys() == []
    assert cache.prune(0) == 0


def test_what_a_lost_extraction_held_can_go(package_of, extract):
    extract(package_of(b"1"))
    gc.collect()
    assert cache.prune(0) > 0


def test_writing_keeps_the_cache_in_its_bound(package_of, monkeypatch, extract, content):
    monkeypatch.setenv("AOTI_CACHE_SIZE", "25K")
    for i in range(5):
        held = extract(package_of(b"%d" % i * 5000))
        assert content(held) == b"%d" % i * 5000
        held.release()
        used_at(held, i)
    assert len(keys()) == 2
    assert sum(entry.bytes for entry in cache.entries()) < 25 << 10
    monkeypatch.setenv("AOTI_CACHE_SIZE", "0")
    held = extract(package_of(b"5"))
    assert keys() == [held.key]


SIZES = {"1000": 1000, "0": 0, "10K": 10 << 10, "500m": 500 << 20, "1.5G": 3 << 29, " 2T ": 2 << 40}


@pytest.mark.parametrize("text", SIZES)
def test_sizes(monkeypatch, text):
    monkeypatch.setenv("AOTI_CACHE_SIZE", text)
    assert cache.size_limit() == SIZES[text]


@pytest.mark.parametrize("text", ["many", "-1", "10X", "10 000", "G", "1e9", "nan", "٣"])
def test_a_size_that_is_none_is_refused(package_of, monkeypatch, text, extract):
    monkeypatch.setenv("AOTI_CACHE_SIZE", text)
    with pytest.raises(ConfigError, match=r"AOTI_CACHE_SIZE=.* such as 500M"):
        extract(package_of(b"1"))


def test_there_need_be_no_cache(place):
    assert cache.entries() == []
    assert cache.prune(0) == 0
    assert not place.exists()


def test_what_is_not_ours_in_the_location_stays(package_of, place, extract):
    extract(package_of(b"1"))
    names = {"notes.txt", "mine.lock", "mine.partial"}
    for name in names:
        (place / name).write_text("")
    cache.prune(0)
    assert names <= {path.name for path in place.iterdir()}
    for name in names:
        (place / name).unlink()


# -- the location ----------------------------------------------------------------------------------


def test_the_location(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.location() == tmp_path / "cache/v1"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AOTI_CACHE_DIR", "here")
    assert cache.location() == tmp_path / "here/v1"
    monkeypatch.setenv("AOTI_CACHE_DIR", "")
    assert cache.location() == Path("/xdg/aoti/v1")
    for ignored in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache.location() == Path("/home/me/.cache/aoti/v1")


def test_without_a_home_the_variable_is_named(package_of, monkeypatch, extract):
    for name in ("AOTI_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match=r"no home directory.*AOTI_CACHE_DIR"):
        extract(package_of(b"1"))
    extract(package_of(b"1"), shared=False).release()


def test_an_entry_in_a_location_that_is_only_read_is_used(package_of, monkeypatch, later, extract):
    path = package_of(b"1")
    wanted = extract(path).path
    monkeypatch.setattr(cache, "swept", set())
    real = os.open

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    def read_only(path, flags, *rest, **options):
        return refuse() if flags & (os.O_CREAT | os.O_RDWR) else real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert extract(path).path == wanted


def test_room_is_made_before_a_disk_is_called_full(package_of, monkeypatch, extract):
    old = extract(package_of(b"1" * 5000))
    old.release()
    real = os.statvfs

    def statvfs(path):
        free = 11000 if old.directory.exists() is False else 3000
        return SimpleNamespace(f_flag=real(path).f_flag, f_bavail=free, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    new = extract(package_of(b"2" * 5000))
    assert keys() == [new.key]


@pytest.mark.parametrize("umask", [0, 0o002, 0o077])
def test_the_index_is_used_whatever_the_umask(package_of, hashed, later, extract, umask):
    path = package_of(b"1")
    old = os.umask(umask)
    try:
        for _ in range(3):
            extract(path)
    finally:
        os.umask(old)
    assert hashed == ["m.pt2"]
