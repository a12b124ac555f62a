"""The shared cache: one entry for one content, whoever asks, and whatever happens to them."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from aoti import ConfigError, Package, PackageError, _libtorch, cache, scratch
from aoti.extraction import Key, is_whole

SO, BLOB = "a.wrapper.so", "a_weights.blob"
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache without entries, and an empty temporary directory. Nothing stray at the end."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("AOTI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("AOTI_CACHE_SIZE", raising=False)
    monkeypatch.setattr(cache, "_swept", set())
    monkeypatch.setattr(scratch, "_swept", set())
    place = tmp_path / "cache/v1"
    yield place
    assert list((tmp_path / "tmp").iterdir()) == []
    assert strays(place) == []


def strays(place: Path) -> list[str]:
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    return [name for name in names if name != "index" and not Key.PATTERN.fullmatch(name)]


@pytest.fixture
def package_of(tmp_path):
    """Write a package of small models that hold `content`; give its path."""

    def write(content: bytes, *models: str, name: str = "m.pt2") -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for model in models or ("model",):
                for file in (SO, BLOB):
                    archive.writestr(f"m/data/aotinductor/{model}/{file}", content)
        return tmp_path / name

    return write


def extract(path, model: str = "model", *, as_zip: bool = False, kind=Package, **options):
    with kind(path) as package:
        return cache.extract(package, model, as_zip=as_zip, **options)


def content(extraction, model: str = "model") -> bytes:
    """What stands in an extraction, after a look at whether it is whole."""
    directory = extraction.path / "data/aotinductor" / model
    assert {path.name for path in directory.iterdir()} == {SO, BLOB}
    assert (directory / SO).read_bytes() == (directory / BLOB).read_bytes()
    return (directory / SO).read_bytes()


def run(program: str, *arguments: object, **options) -> subprocess.Popen:
    """Start a program in a fresh Python."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    prelude = "import os, signal, sys, time\nfrom aoti import Package, cache\n"
    command = [sys.executable, "-W", "error", "-c", prelude + program, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, **options)


HOLD = """
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model", as_zip=False)
print(held.path, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: Path):
    """A process that uses a package until the end; gives the extraction's path."""
    process = run(HOLD, path, stdin=subprocess.PIPE)
    try:
        yield Path(process.stdout.readline().strip())
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0


# -- entries -------------------------------------------------------------------------------------


def test_an_entry_stays_and_is_used_again(package_of, place):
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


def test_processes_share_entries(package_of):
    path = package_of(b"1")
    with holder(path) as theirs:
        mine = extract(path)
        assert mine.path == theirs
        assert theirs.stat().st_ino == mine.path.stat().st_ino


def test_only_this_user_can_look_inside(package_of, place):
    extract(package_of(b"1"))
    assert place.stat().st_mode & 0o777 == 0o700


def test_different_models_contents_and_forms_stand_side_by_side(package_of):
    long = "ä" * 100
    models = ("model.partial", "Model", "model-zip", long, "~", "..model", "a b\n", "model")
    held = [(model, extract(package_of(b"1", *models), model)) for model in models]
    held.append(("model", extract(package_of(b"2", *models))))
    archive = extract(package_of(b"1", *models), as_zip=True)
    assert len({extraction.path for _, extraction in held}) == len(held)
    assert archive.directory not in [extraction.directory for _, extraction in held]
    assert len(cache.entries()) == len(held) + 1
    for model, extraction in held:
        assert content(extraction, model) == (b"2" if extraction is held[-1][1] else b"1")
        assert len(extraction.key) < 140


def test_as_zip_gives_an_archive_that_the_loader_takes(packages, mlp, rows):
    extraction = extract(packages / "mlp.pt2", as_zip=True)
    assert {path.name for path in extraction.directory.iterdir()} == {"model.pt2", "manifest.json"}
    assert extraction.path == extraction.directory / "model.pt2"
    with zipfile.ZipFile(extraction.path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {Path(name).parent.as_posix() for name in archive.namelist()} == {
            "model/data/aotinductor/model"
        }
    loader = _libtorch.core().Loader(
        str(extraction.path),
        "model",
        single_threaded=False,
        num_runners=1,
        device_index=-1,
        inputs=None,
        repair=lambda index, inputs: pytest.fail("these rows need no repair"),
    )
    assert loader.run([rows])[0].tolist() == mlp(rows).tolist()
    loader.close()


def test_as_zip_works_where_the_clock_was_never_set(package_of):
    class Old(Package):
        def extract(self, model_name, destination):
            super().extract(model_name, destination)
            for path in destination.rglob("*"):
                os.utime(path, (0, 0))

    extraction = extract(package_of(b"1"), as_zip=True, kind=Old)
    with zipfile.ZipFile(extraction.path) as archive:
        assert archive.read(f"model/data/aotinductor/model/{SO}") == b"1"


def cut(directory: Path):
    with next(directory.rglob(BLOB)).open("r+b") as file:
        file.truncate(0)


DAMAGES = {
    "file removed": lambda directory: next(directory.rglob(SO)).unlink(),
    "file cut": cut,
    "no manifest": lambda directory: (directory / "manifest.json").unlink(),
    "no JSON": lambda directory: (directory / "manifest.json").write_text("{"),
    "other JSON": lambda directory: (directory / "manifest.json").write_text("[1]"),
    "all gone": shutil.rmtree,
    "a file instead": lambda directory: (shutil.rmtree(directory), directory.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("shared", [True, False])
def test_what_something_damaged_is_written_again(package_of, place, damage, shared):
    path = package_of(b"1")
    first = extract(path, shared=shared)
    DAMAGES[damage](first.directory)
    second = extract(path, shared=shared)
    assert second.path == first.path  # the dynamic loader knows it by this name
    assert content(second) == b"1"
    first.release()
    assert content(second) == b"1"
    second.release()


def test_what_was_damaged_in_use_by_others_is_replaced_and_not_written_to(package_of):
    path = package_of(b"1")
    with holder(path) as theirs, next(theirs.rglob(SO)).open("rb") as mapped:
        cut(theirs.parent)
        mine = extract(path)
        assert mine.path == theirs
        assert content(mine) == b"1"
        assert not os.path.samestat(os.fstat(mapped.fileno()), next(theirs.rglob(SO)).stat())
        assert mapped.read() == b"1"


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_a_damaged_package_leaves_nothing(package_of, place, shared, as_zip):
    damaged = package_of(b"1234")
    data = damaged.read_bytes()
    damaged.write_bytes(data[::-1].replace(b"4321", b"4322", 1)[::-1])  # the last file's
    with pytest.raises(PackageError, match="damaged"):
        extract(damaged, as_zip=as_zip, shared=shared)
    assert cache.entries() == []
    assert content(extract(package_of(b"1234"))) == b"1234"


def test_a_package_that_is_changed_meanwhile_is_refused(package_of):
    path = package_of(b"1")

    class Changing(Package):
        def extract(self, model_name, destination):
            super().extract(model_name, destination)
            os.utime(path, (0, 0))

    with pytest.raises(PackageError, match="changed while it was read"):
        extract(path, kind=Changing)
    assert cache.entries() == []


# -- the index of digests ------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch):
    """The packages whose digests were computed."""
    computed = []
    original = Package.digest.fget

    def digest(self):
        computed.append(self.path.name)
        return original(self)

    monkeypatch.setattr(Package, "digest", property(digest))
    return computed


@pytest.fixture
def later(monkeypatch):
    """A clock that is an hour ahead: all files are old."""
    real = time.time_ns
    monkeypatch.setattr(cache.time, "time_ns", lambda: real() + 3600 * 10**9)


def digest(path):
    with Package(path) as package:
        return cache.digest(package)


def test_an_unchanged_file_is_hashed_once(package_of, place, hashed, later):
    path = package_of(b"1")
    first = extract(path)
    assert extract(path).digest == first.digest
    assert digest(path) == first.digest
    assert hashed == ["m.pt2"]
    assert len(list((place / "index").iterdir())) == 1


def test_verifying_always_hashes(package_of, hashed, later):
    path = package_of(b"1")
    for _ in range(2):
        extract(path)
        extract(path, verify=True)
    assert len(hashed) == 3


def test_a_file_that_is_too_young_to_tell_is_hashed_again(package_of, place, hashed):
    path = package_of(b"1")
    extract(path)
    extract(path)
    assert len(hashed) == 2
    assert not (place / "index").exists()


def test_a_changed_file_is_hashed_again(package_of, hashed, later):
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


def test_a_file_that_changes_while_it_is_hashed_is_not_indexed(package_of, place, later):
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
def test_a_damaged_index_is_ignored(package_of, place, later, hashed, text):
    path = package_of(b"1")
    extract(path)
    (record,) = (place / "index").iterdir()
    record.write_text(text)
    extract(path)
    extract(path)
    assert len(hashed) == 2  # and it was mended


def test_an_index_that_cannot_be_written_is_ignored(package_of, place, later, hashed):
    place.mkdir(mode=0o700, parents=True)
    (place / "index").write_text("")
    assert content(extract(package_of(b"1"))) == b"1"
    assert content(extract(package_of(b"1"))) == b"1"
    assert len(hashed) == 2


def test_others_cannot_plant_digests(package_of, place, later, hashed):
    path = package_of(b"1")
    extract(path)
    place.chmod(0o777)
    digest(path)
    assert len(hashed) == 2


def test_the_index_is_bounded(package_of, place, later, monkeypatch):
    monkeypatch.setattr(cache, "_INDEX_FILES", 3)
    paths = [package_of(b"%d" % i, name=f"{i}.pt2") for i in range(6)]
    for i, path in enumerate(paths):
        extract(path)
        identity = path.stat()
        os.utime(place / f"index/{identity.st_dev:x}-{identity.st_ino:x}.json", (i, i))
    cache.prune(1 << 30)
    kept = {json.loads(file.read_text())[1] for file in (place / "index").iterdir()}
    assert kept == {path.stat().st_ino for path in paths[3:]}


def test_directories_have_digests_too(package_of, tmp_path, hashed):
    with zipfile.ZipFile(package_of(b"1")) as archive:
        archive.extractall(tmp_path / "unpacked")
    for _ in range(2):
        assert content(extract(tmp_path / "unpacked/m")) == b"1"
    assert len(hashed) == 2


# -- the size bound ------------------------------------------------------------------------------


def used_at(extraction, seconds: float):
    os.utime(extraction.directory / "manifest.json", (seconds, seconds))


def keys() -> list[str]:
    return [entry.key for entry in cache.entries()]


def test_the_least_recently_used_go_first(package_of, place):
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


def test_what_is_in_use_stays(package_of):
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


def test_what_a_lost_extraction_held_can_go(package_of):
    extract(package_of(b"1"))
    gc.collect()
    assert cache.prune(0) > 0


def test_writing_keeps_the_cache_in_its_bound(package_of, monkeypatch):
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
    assert cache._limit() == SIZES[text]


@pytest.mark.parametrize("text", ["many", "-1", "10X", "10 000", "G", "1e9", "nan", "٣"])
def test_a_size_that_is_none_is_refused(package_of, monkeypatch, text):
    monkeypatch.setenv("AOTI_CACHE_SIZE", text)
    with pytest.raises(ConfigError, match=r"AOTI_CACHE_SIZE=.* such as 500M"):
        extract(package_of(b"1"))


def test_there_need_be_no_cache(place):
    assert cache.entries() == []
    assert cache.prune(0) == 0
    assert not place.exists()


def test_what_is_not_ours_in_the_location_stays(package_of, place):
    extract(package_of(b"1"))
    names = {"notes.txt", "mine.lock", "mine.partial"}
    for name in names:
        (place / name).write_text("")
    cache.prune(0)
    assert names <= {path.name for path in place.iterdir()}
    for name in names:
        (place / name).unlink()


# -- the location --------------------------------------------------------------------------------


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


def test_without_a_home_the_variable_is_named(package_of, monkeypatch):
    for name in ("AOTI_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match=r"no home directory.*AOTI_CACHE_DIR"):
        extract(package_of(b"1"))
    extract(package_of(b"1"), shared=False).release()


@pytest.fixture
def refused(package_of, tmp_path):
    """Extract, which must fail, with the place and its variable in the first line."""

    def check(why: str, *, shared: bool = True, cause=OSError) -> None:
        with pytest.raises(ConfigError) as caught:
            extract(package_of(b"1"), shared=shared)
        line = str(caught.value).splitlines()[0]
        place = tmp_path / ("cache/v1" if shared else "tmp/aoti-")
        assert str(place) in line
        assert f"set {'AOTI_CACHE_DIR' if shared else 'TMPDIR'} to a directory" in line
        assert why in line
        assert cause is None or isinstance(caught.value.__cause__, cause)

    return check


@pytest.mark.parametrize("shared", [True, False])
def test_a_location_below_a_file_is_named(refused, tmp_path, monkeypatch, shared):
    (tmp_path / "tmp").rmdir()
    for name in ("cache", "tmp"):
        (tmp_path / name).write_text("")
    refused("Not a directory", shared=shared)
    (tmp_path / "tmp").unlink()
    (tmp_path / "tmp").mkdir()


def test_a_temporary_directory_that_is_not_there_is_named(refused, tmp_path):
    (tmp_path / "tmp").rmdir()
    refused("No such file", shared=False)
    (tmp_path / "tmp").mkdir()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_location_that_cannot_be_written_is_named(refused, monkeypatch, number, place):
    place.mkdir(mode=0o700, parents=True)
    real = os.open

    def refuse(path, flags, *rest, **options):
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    refused(os.strerror(number))


def test_an_entry_in_a_location_that_is_only_read_is_used(package_of, monkeypatch, later):
    path = package_of(b"1")
    wanted = extract(path).path
    monkeypatch.setattr(cache, "_swept", set())
    real = os.open

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    def read_only(path, flags, *rest, **options):
        return refuse() if flags & (os.O_CREAT | os.O_RDWR) else real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    assert extract(path).path == wanted


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.chmod(0o777), "others may write to it (chmod go-w)"),
        (lambda path: path.chmod(0o720), "others may write to it"),
        (lambda path: os.chown(path, 12345, 12345), "belongs to another user (12345)"),
        (lambda path: (path.rename("real"), path.symlink_to("real")), "not a directory"),
    ],
)
def test_a_place_that_others_control_is_refused(
    refused, tmp_path, monkeypatch, damage, why, shared
):
    if os.geteuid():
        pytest.skip("needs root, to give a directory away")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("cache/v1" if shared else "tmp/aoti-0")
    path.mkdir(mode=0o700, parents=True)
    damage(path)
    refused(why, shared=shared, cause=None)
    if path.is_symlink():
        path.unlink()
    else:
        path.rmdir()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("facts", "why"),
    [({"f_flag": os.ST_NOEXEC}, "noexec"), ({"f_bavail": 0}, "bytes")],
)
def test_a_file_system_that_does_not_do_is_named(
    refused, monkeypatch, facts, why, shared, tmp_path
):
    real = os.statvfs

    def statvfs(path):
        got = real(path)
        names = ("f_flag", "f_bavail", "f_frsize")
        return SimpleNamespace(**{**{name: getattr(got, name) for name in names}, **facts})

    monkeypatch.setattr(os, "statvfs", statvfs)
    refused(why, shared=shared, cause=None)
    shutil.rmtree(tmp_path / f"tmp/aoti-{os.geteuid()}", ignore_errors=True)
    assert cache.entries() == []


def test_room_is_made_before_a_disk_is_called_full(package_of, monkeypatch):
    old = extract(package_of(b"1" * 5000))
    old.release()
    real = os.statvfs

    def statvfs(path):
        free = 11000 if old.directory.exists() is False else 3000
        return SimpleNamespace(f_flag=real(path).f_flag, f_bavail=free, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    new = extract(package_of(b"2" * 5000))
    assert keys() == [new.key]


FULL = """
import resource
from aoti import ConfigError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
with Package(sys.argv[1]) as package:
    try:
        cache.extract(package, "model", as_zip=sys.argv[2] == "1", shared=sys.argv[3] == "1")
    except ConfigError as error:
        print(error, *error.__cause__.__notes__)
print(cache.entries())
"""


@pytest.mark.parametrize("shared", [1, 0])
@pytest.mark.parametrize("as_zip", [1, 0])
def test_a_disk_that_gets_full_is_named(package_of, shared, as_zip):
    path = package_of(b"1" * (1 << 17))
    said, _ = run(FULL, path, as_zip, shared).communicate(timeout=30)
    line, left = said.splitlines()
    assert "File too large" in line
    assert f"set {'AOTI_CACHE_DIR' if shared else 'TMPDIR'}" in line
    assert str(path) in line
    assert left == "[]"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_what_is_not_the_places_fault_is_not_blamed_on_it(package_of, number):
    class Failing(Package):
        def extract(self, model_name, destination):
            raise OSError(number, "it failed")

    with pytest.raises(OSError, match="it failed") as caught:
        extract(package_of(b"1"), kind=Failing)
    assert "while extracting" in caught.value.__notes__[0]


# -- threads, garbage and processes --------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_threads_share_extractions(package_of, shared):
    texts = [b"0", b"1", b"2"]
    paths = [package_of(text, name=f"{text.decode()}.pt2") for text in texts]
    failures = []

    def work(seed):
        order = random.Random(seed)
        try:
            for _ in range(50):
                which = order.randrange(3)
                extraction = extract(paths[which], shared=shared)
                assert content(extraction) == texts[which]
                if not order.randrange(10):
                    cache.prune(0)
                twice = [threading.Thread(target=extraction.release) for _ in range(2)]
                for thread in twice:
                    thread.start()
                for thread in twice:
                    thread.join()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shared", [True, False])
def test_the_garbage_collector_may_release_in_the_middle_of_an_extraction(package_of, shared):
    class Model:
        def __init__(self, extraction):
            self.extraction = extraction
            self.cycle = self

        def __del__(self):
            self.extraction.release()

    class Collecting(Package):
        def extract(self, model_name, destination):
            super().extract(model_name, destination)
            assert gc.collect()

    gc.disable()
    try:
        Model(extract(package_of(b"1"), shared=shared))
        extraction = extract(package_of(b"2"), kind=Collecting, shared=shared)
    finally:
        gc.enable()
    if not shared:
        assert list(extraction.directory.parent.iterdir()) == [extraction.directory]
    assert content(extraction) == b"2"
    extraction.release()


SLOW = """
class Slow(Package):
    def extract(self, model_name, destination):
        print("writing", flush=True)
        time.sleep(float(sys.argv[2]))
        super().extract(model_name, destination)

with Slow(sys.argv[1]) as package:
    cache.extract(package, "model", as_zip=False)
"""


def test_different_packages_do_not_wait_for_each_other(package_of):
    slow = run(SLOW, package_of(b"1", name="slow.pt2"), 30)
    assert slow.stdout.readline() == "writing\n"
    assert content(extract(package_of(b"2"))) == b"2"
    slow.kill()
    slow.communicate()
    cache.prune(1 << 30)


def test_waiting_can_be_interrupted_and_ends_with_the_writer(package_of):
    path = package_of(b"1")
    slow = run(SLOW, path, 30)
    assert slow.stdout.readline() == "writing\n"

    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Alarm):
            extract(path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    killer = threading.Timer(0.3, slow.kill)
    killer.start()
    assert content(extract(path)) == b"1"
    killer.join()
    slow.communicate()


START = """
print("ready", flush=True)
sys.stdin.read()
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model", as_zip=False)
(blob,) = held.path.rglob("*.blob")
assert blob.stat().st_size == int(sys.argv[2])
print("done", flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_sixteen_starts_with_random_kills_leave_one_whole_entry(package_of, place, seed):
    order = random.Random(seed)
    size = 32 << 20
    path = package_of(order.randbytes(size))
    processes = [run(START, path, size, stdin=subprocess.PIPE) for _ in range(16)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    begin = time.monotonic()
    for process in processes:
        process.stdin.close()
    doomed = set(order.sample(processes, 14))
    for process in sorted(doomed, key=processes.index):
        time.sleep(order.random() * 0.1)
        process.kill()
    took = time.monotonic() - begin
    codes = {process.wait(timeout=60) for process in processes if process not in doomed}
    for process in processes:
        process.stdout.close()
        process.wait()
    assert codes == {0}, took

    last = run(START, path, size, stdin=subprocess.PIPE)
    said, _ = last.communicate(timeout=60)
    assert said == "ready\ndone\n"
    assert [item.name for item in place.iterdir() if item.name != "index"] == keys()
    assert len(keys()) == 1
    held = extract(path)
    with Package(path) as package:
        assert is_whole(held.directory, Key(package.digest, "model", False))
        assert content(held) == next(held.path.rglob(BLOB)).read_bytes()


def test_a_start_removes_what_all_killed_writers_left(package_of, place):
    paths = [package_of(b"%d" % i, name=f"{i}.pt2") for i in range(3)]
    writers = [run(SLOW, path, 30) for path in paths]
    for process in writers:
        assert process.stdout.readline() == "writing\n"
    for process in writers:
        process.kill()
        process.communicate()
    assert len(strays(place)) == 6  # a lock and a half entry each
    held = extract(package_of(b"9"))
    assert strays(place) == []
    assert keys() == [held.key]


def test_a_start_leaves_what_live_writers_write(package_of, place):
    slow = run(SLOW, package_of(b"1", name="slow.pt2"), 1)
    assert slow.stdout.readline() == "writing\n"
    held = extract(package_of(b"2"))
    cache.prune(0)
    assert len(strays(place)) == 2
    assert slow.wait(timeout=30) == 0
    slow.communicate()
    assert len(keys()) == 2
    assert held.key in keys()


FORK = """
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model", as_zip=False)
child = os.fork()
if child == 0:
    held.release()
    with Package(sys.argv[1]) as package:
        own = cache.extract(package, "model", as_zip=False)
        assert own.path == held.path
        own.release()
    assert cache.prune(0) == 0
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert held.path.exists() and cache.prune(0) == 0
held.release()
assert cache.prune(0) > 0
"""


def test_a_forked_child_leaves_its_parents_alone(package_of):
    process = run(FORK, package_of(b"1"))
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_fork_in_the_middle_of_writing_keeps_nobody_waiting(package_of):
    children = []

    class Forking(Package):
        def extract(self, model_name, destination):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
            super().extract(model_name, destination)

    path = package_of(b"1")
    try:
        held = extract(path, kind=Forking)
        assert content(held) == b"1"
        held.release()
        cut(held.directory)
        assert content(extract(path)) == b"1"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


# -- private extractions -------------------------------------------------------------------------


@pytest.fixture
def private(package_of, tmp_path):
    return lambda text=b"1", **options: extract(package_of(text), shared=False, **options)


def test_a_private_extraction_goes_with_its_last_user(private, place, tmp_path):
    first, second = private(), private()
    assert first.path == second.path
    assert content(first) == b"1"
    root = tmp_path / f"tmp/aoti-{os.geteuid()}"
    assert first.directory.parent.parent == root
    assert {path.stat().st_mode & 0o777 for path in (root, first.directory.parent)} == {0o700}
    for _ in range(2):
        first.release()
        assert content(second) == b"1"
    second.release()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not place.exists()


def test_a_lost_private_extraction_goes_with_the_garbage(private, tmp_path):
    private()
    gc.collect()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_private_content_keeps_its_path_for_the_life_of_the_process(private):
    paths = set()
    for text in (b"1", b"2", b"1", b"2"):
        held = private(text)
        assert content(held) == text
        paths.add((text, held.path))
        held.release()
    assert len(paths) == len({path for _, path in paths}) == 2


def test_what_cleaned_up_the_temporary_directory_does_no_harm(private, tmp_path):
    first = private()
    shutil.rmtree(tmp_path / f"tmp/aoti-{os.geteuid()}")
    second = private()
    assert content(second) == b"1"
    first.release()
    assert content(second) == b"1"
    second.release()


def test_users_of_a_temporary_directory_stay_there(private, tmp_path, monkeypatch):
    first = private()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    second = private()
    assert second.path == first.path
    first.release()
    second.release()
    third = private()
    assert third.path.is_relative_to(tmp_path / "other")
    third.release()
    assert list((tmp_path / "other").iterdir()) == []


PRIVATE = """
with Package(sys.argv[1]) as package:
    held = cache.extract(package, "model", as_zip=False, shared=False)
print(held.path, flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
"""


@pytest.mark.parametrize("shared", [True, False])
def test_the_next_start_removes_what_a_killed_one_left(package_of, tmp_path, shared):
    path = package_of(b"1")
    processes = [run(PRIVATE, path, "wait", stdin=subprocess.PIPE) for _ in range(3)]
    paths = [Path(process.stdout.readline().strip()) for process in processes]
    assert len(set(paths)) == 3
    for process in processes[:2]:
        process.kill()
        process.communicate()
    assert all(path.exists() for path in paths)
    extract(path, shared=shared).release()
    assert [path.exists() for path in paths] == [False, False, True]
    assert len(list((tmp_path / f"tmp/aoti-{os.geteuid()}").iterdir())) == 2
    processes[2].communicate(timeout=30)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_private_extraction_goes_at_exit(package_of, tmp_path):
    assert run(PRIVATE, package_of(b"1"), "").communicate(timeout=30)[0]
    assert list((tmp_path / "tmp").iterdir()) == []


PRIVATE_FORK = """
def extract():
    with Package(sys.argv[1]) as package:
        return cache.extract(package, "model", as_zip=False, shared=False)

held = extract()
child = os.fork()
if child == 0:
    own = extract()
    assert own.path != held.path
    held.release()
    own.release()
    assert held.path.exists() and not own.path.exists()
    kept = extract()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert held.path.exists()
assert len(os.listdir(held.directory.parent.parent)) == 2
"""


def test_a_forked_child_has_private_extractions_of_its_own(package_of, tmp_path):
    process = run(PRIVATE_FORK, package_of(b"1"))
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_processes_with_private_extractions_come_and_go(package_of):
    path = package_of(b"1")
    program = """
for _ in range(30):
    with Package(sys.argv[1]) as package:
        held = cache.extract(package, "model", as_zip=False, shared=False)
    assert (held.path / "data/aotinductor/model/a.wrapper.so").exists()
    held.release()
    cache.scratch._swept.clear()
"""
    processes = [run(program, path) for _ in range(6)]
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [
        0
    ] * 6
