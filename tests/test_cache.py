"""Extractions: shared, private, gone when nobody needs them, and never in the way of a fork."""

from __future__ import annotations

import gc
import os
import random
import shutil
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest

from aoti import Package, PackageError, _libtorch, cache

SO, BLOB = "a.wrapper.so", "a_weights.blob"


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """The temporary directory, and a store without users. Empty again at the end."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(cache, "_store", cache._Store())
    yield scratch
    assert list(scratch.iterdir()) == []


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


def extract(path, model: str = "model", *, as_zip: bool = False, kind=Package):
    with kind(path) as package:
        return cache.extract(package, model, as_zip=as_zip)


def content(extraction, model: str = "model") -> bytes:
    """What stands in an extraction, after a look at whether it is whole."""
    directory = extraction.path / "data/aotinductor" / model
    assert {path.name for path in directory.iterdir()} == {SO, BLOB}
    assert (directory / SO).read_bytes() == (directory / BLOB).read_bytes()
    return (directory / SO).read_bytes()


# -- sharing -------------------------------------------------------------------------------------


def test_one_content_is_extracted_once_and_removed_with_its_last_user(package_of, scratch):
    first = extract(package_of(b"1"))
    second = extract(package_of(b"1"))
    renamed = package_of(b"1").rename(scratch.parent / "other.pt2")
    third = extract(renamed)
    assert first.path == second.path == third.path
    assert content(first) == b"1"
    for extraction in (second, first):
        extraction.release()
        extraction.release()  # harmless
        assert content(third) == b"1"
    third.release()
    assert list(scratch.iterdir()) == []


def test_only_this_user_can_look_inside(package_of, scratch):
    extraction = extract(package_of(b"1"))
    (root,) = scratch.iterdir()
    assert root.stat().st_mode & 0o777 == 0o700
    extraction.release()


def test_a_content_keeps_its_path_for_the_life_of_the_process(package_of):
    paths = set()
    for text in (b"1", b"2", b"1", b"2"):
        extraction = extract(package_of(text))
        assert content(extraction) == text
        paths.add((text, extraction.path))
        extraction.release()
    assert len(paths) == len({path for _, path in paths}) == 2


def test_a_root_that_somebody_else_took_is_left_alone(package_of, scratch):
    extraction = extract(package_of(b"1"))
    extraction.release()
    foreign = extraction.path.parent
    foreign.mkdir()
    again = extract(package_of(b"1"))
    assert again.path.parent != foreign
    assert list(foreign.iterdir()) == []
    again.release()
    foreign.rmdir()


def test_different_models_contents_and_forms_stand_side_by_side(package_of):
    models = ("model.partial", "partial-model", "model-zip", "zip-model", "model")
    held = [(model, extract(package_of(b"1", *models), model)) for model in models]
    held.append(("model", extract(package_of(b"2", *models))))
    archive = extract(package_of(b"1", *models), as_zip=True)
    assert len({extraction.path for _, extraction in held}) == 6
    archive.release()
    for model, extraction in held:
        assert content(extraction, model) == (b"2" if extraction is held[-1][1] else b"1")
        extraction.release()


def test_what_something_cleaned_up_is_written_again(package_of, scratch):
    first = extract(package_of(b"1"))
    shutil.rmtree(next(scratch.iterdir()))
    second = extract(package_of(b"1"))
    assert content(second) == b"1"
    first.release()
    assert content(second) == b"1"
    second.release()


def test_as_zip_gives_an_archive_that_the_loader_takes(packages, mlp, rows):
    extraction = extract(packages / "mlp.pt2", as_zip=True)
    assert extraction.path.suffix == ".pt2"
    assert list(extraction.path.parent.iterdir()) == [extraction.path]
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
    extraction.release()


def test_as_zip_works_where_the_clock_was_never_set(package_of, monkeypatch):
    class Old(Package):
        def extract(self, model_name, destination):
            super().extract(model_name, destination)
            for path in destination.rglob("*"):
                os.utime(path, (0, 0))

    extraction = extract(package_of(b"1"), as_zip=True, kind=Old)
    with zipfile.ZipFile(extraction.path) as archive:
        assert archive.read(f"model/data/aotinductor/model/{SO}") == b"1"
    extraction.release()


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("in_use", [False, True])
def test_a_failure_half_way_leaves_nothing(package_of, scratch, tmp_path, in_use, as_zip):
    other = extract(package_of(b"other")) if in_use else None
    damaged = package_of(b"1234")
    data = damaged.read_bytes()
    damaged.write_bytes(data[::-1].replace(b"4321", b"4322", 1)[::-1])  # the last file's
    with pytest.raises(PackageError, match="damaged"):
        extract(damaged, as_zip=as_zip)
    if other:
        assert list(next(scratch.iterdir()).iterdir()) == [other.path]
        assert content(other) == b"other"
        other.release()
    assert list(scratch.iterdir()) == []
    good = extract(package_of(b"1234"))
    assert content(good) == b"1234"
    good.release()


@pytest.mark.parametrize("place", ["missing", "m.pt2"])
def test_a_place_that_cannot_be_written_to_is_named(package_of, tmp_path, monkeypatch, place):
    package = package_of(b"1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
    with pytest.raises(OSError, match=str(tmp_path / place)):
        extract(package)


FULL = """
import resource, sys, tempfile
from aoti import Package, cache
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
with Package(sys.argv[1]) as package:
    try:
        cache.extract(package, "model", as_zip=False)
    except OSError as error:
        print(error, *error.__notes__)
"""


def test_a_disk_that_is_full_is_named(packages, run_python, scratch):
    said = run_python(FULL, packages / "mlp.pt2")
    assert "File too large" in said
    assert str(packages / "mlp.pt2") in said
    assert str(scratch) in said


# -- threads, garbage and processes --------------------------------------------------------------


def test_threads_share_extractions(package_of, scratch):
    texts = [b"0", b"1", b"2"]
    paths = [package_of(text, name=f"{text.decode()}.pt2") for text in texts]
    failures = []

    def work(seed):
        order = random.Random(seed)
        try:
            for _ in range(50):
                which = order.randrange(3)
                extraction = extract(paths[which])
                assert content(extraction) == texts[which]
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
def test_the_garbage_collector_may_release_in_the_middle_of_an_extraction(package_of, scratch):
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
        Model(extract(package_of(b"1")))
        extraction = extract(package_of(b"2"), kind=Collecting)
    finally:
        gc.enable()
    assert list(extraction.path.parent.iterdir()) == [extraction.path]
    assert content(extraction) == b"2"
    extraction.release()


def test_nothing_is_left_at_exit(packages, run_python):
    program = "import aoti, sys; models = [aoti.load(sys.argv[1]) for _ in range(3)]"
    run_python(program, packages / "mlp.pt2")
    run_python(program + "; raise SystemExit", packages / "mlp.pt2")
    run_python(program + "; models[0].close()", packages / "mlp.pt2")


FORK = """
import os, sys, tempfile, warnings
import numpy as np
import aoti

def extractions():
    return sorted(os.listdir(tempfile.gettempdir()))

model, x = aoti.load(sys.argv[1]), np.ones((3, 10), np.float32)
mine = extractions()
warnings.simplefilter("ignore")  # Python 3.12 warns of forks where there are threads
# Nothing may have run before: libgomp's threads do not survive a fork, and the child would hang.
child = os.fork()
if child == 0:
    with aoti.load(sys.argv[1]) as own:
        assert len(extractions()) == 2
        assert own(x).tolist() == model(x).tolist()
    assert extractions() == mine
    model.close()
    assert extractions() == mine
    kept = aoti.load(sys.argv[1])
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert extractions() == mine
with aoti.load(sys.argv[1]) as again:
    assert again(x).tolist() == model(x).tolist()
"""


def test_a_forked_child_has_its_own_and_leaves_its_parents_alone(packages, run_python):
    run_python(FORK, packages / "mlp.pt2")
