"""Extractions: whole or not there, and places that are named where they do not do."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

import aoti
from aoti import ConfigError, Package, PackageError, Signature
from aoti.arrays.validation import Checker
from aoti.cache import cache
from aoti.engine import libtorch
from aoti.engine._core._program import Program

pytestmark = pytest.mark.usefixtures("place")
SO, BLOB = "a.wrapper.so", "a_weights.blob"


def test_different_models_contents_and_forms_stand_side_by_side(package_of, extract, content):
    long = "ä" * 100
    models = ("model.partial", "Modell", "model-zip", long, "~", "..model", "a b\n", "model")
    held = [(model, extract(package_of(b"1", *models), model)) for model in models]
    held.append(("model", extract(package_of(b"2", *models))))
    archive = extract(package_of(b"1", *models), form="zip")
    assert len({extraction.path for _, extraction in held}) == len(held)
    assert archive.directory not in [extraction.directory for _, extraction in held]
    assert len(cache.entries()) == len(held) + 1
    for model, extraction in held:
        assert content(extraction, model) == (b"2" if extraction is held[-1][1] else b"1")
        assert len(extraction.key) < 140


def test_a_zip_file_gives_an_archive_that_the_loader_takes(packages, rows, extract):
    extraction = extract(packages / "stock.pt2", form="zip")
    names = {path.name for path in extraction.directory.iterdir()}
    assert names == {"model.pt2", "manifest.json", "constants.json"}
    assert extraction.path == extraction.directory / "model.pt2"
    with zipfile.ZipFile(extraction.path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {Path(name).parent.as_posix() for name in archive.namelist()} == {
            "model/data/aotinductor/model"
        }
        (source,) = (name for name in archive.namelist() if name.endswith(".wrapper.cpp"))
        assert f"{source.removesuffix('.cpp')}_metadata.json" in archive.namelist()
        assert archive.read(source) == b""
    program = Program(
        libtorch.engine(),
        str(extraction.path),
        "model",
        num_runners=1,
        device="cpu",
        threads=0,
        inputs=Checker(Signature(), "model.pt2").inputs(),
    )
    program.serve(program.open(1, container_per_runner=False))
    with aoti.load(packages / "stock.pt2") as model:
        assert program.run([rows])[0].tolist() == model.run([rows])[0].tolist()
    program.close()


def test_a_zip_file_works_where_the_clock_was_never_set(package_of, extract):
    class Old(Package):
        def extract(self, model_name, destination, **options):
            super().extract(model_name, destination, **options)
            for path in destination.rglob("*"):
                os.utime(path, (0, 0))

    extraction = extract(package_of(b"1"), form="zip", kind=Old)
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
def test_what_something_damaged_is_written_again(
    package_of, place, damage, shared, extract, content
):
    path = package_of(b"1")
    first = extract(path, shared=shared)
    DAMAGES[damage](first.directory)
    second = extract(path, shared=shared)
    assert second.path == first.path  # the dynamic loader knows it by this name
    assert content(second) == b"1"
    first.release()
    assert content(second) == b"1"
    second.release()


@pytest.mark.parametrize("form", ["dir", "zip"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_damaged_package_leaves_nothing(package_of, place, shared, form, extract, content):
    damaged = package_of(b"1234")
    data = damaged.read_bytes()
    damaged.write_bytes(data[::-1].replace(b"4321", b"4322", 1)[::-1])  # the last file's
    with pytest.raises(PackageError, match="damaged"):
        extract(damaged, form=form, shared=shared)
    assert cache.entries() == []
    assert content(extract(package_of(b"1234"))) == b"1234"


def test_a_package_that_is_changed_meanwhile_is_refused(package_of, extract):
    path = package_of(b"1234" * 200_000)
    other = package_of(b"5678" * 200_000, name="other.pt2").read_bytes()

    class Changing(Package):
        def extract(self, model_name, destination, **options):
            path.write_bytes(other)
            super().extract(model_name, destination, **options)

    with pytest.raises(PackageError, match="changed while it was read"):
        extract(path, kind=Changing)
    assert cache.entries() == []


@pytest.fixture
def refused(package_of, tmp_path, extract):
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


FULL = """
import resource
from aoti import ConfigError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
with Package(sys.argv[1]) as package:
    try:
        cache.extract(package, "model", form=sys.argv[2], shared=sys.argv[3] == "1")
    except ConfigError as error:
        print(error, *error.__cause__.__notes__)
print(cache.entries())
"""


@pytest.mark.parametrize("shared", [1, 0])
@pytest.mark.parametrize("form", ["zip", "dir"])
def test_a_disk_that_gets_full_is_named(package_of, shared, form, start):
    path = package_of(b"1" * (1 << 17))
    said, _ = start(FULL, path, form, shared).communicate(timeout=30)
    line, left = said.splitlines()
    assert "File too large" in line
    assert f"set {'AOTI_CACHE_DIR' if shared else 'TMPDIR'}" in line
    assert str(path) in line
    assert left == "[]"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_what_is_not_the_places_fault_is_not_blamed_on_it(package_of, number, extract):
    class Failing(Package):
        def extract(self, model_name, destination, **options):
            raise OSError(number, "it failed")

    with pytest.raises(OSError, match="it failed") as caught:
        extract(package_of(b"1"), kind=Failing)
    assert "while extracting" in caught.value.__notes__[0]
