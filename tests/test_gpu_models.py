"""Models on a GPU, on simulated ones: see simulated_gpu/gpu.cpp for what they are strict about."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "simulated_gpu"
ROOT = Path(__file__).parents[1]
PRELUDE = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from simulation import *
gpus = start(sys.argv[2])
packages = Path(sys.argv[3])
scratch = Path(sys.argv[4])
def load(name, **options):
    return aoti.load(for_gpu(packages / name, scratch / name), **options)
def refused(kind, words, call):
    try:
        call()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"nothing said {words!r}")
x = np.random.default_rng(0).standard_normal((3, 10), dtype=np.float32)
expected = None
def right(y):
    global expected
    if expected is None:
        with aoti.load(packages / "mlp.pt2") as model:
            expected = model(x)
    return np.allclose(y.numpy() if hasattr(y, "numpy") else y, expected, atol=1e-6)
"""


@pytest.fixture(scope="module")
def library() -> Path:
    """The simulated GPUs, compiled once per content."""
    torch = pytest.importorskip("torch")
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    root = Path(torch.__file__).parent
    source = HERE / "gpu.cpp"
    content = b"".join(path.read_bytes() for path in (source, HERE / "models.h"))
    digest = hashlib.sha256(content + torch.__version__.encode()).hexdigest()[:16]
    built = ROOT / "build/packages" / f"gpu-{digest}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        include = root / "include"
        partial = built.with_suffix(".partial")
        command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", source, "-o", partial]
        command += ["-isystem", include, "-isystem", include / "torch/csrc/api/include"]
        subprocess.run([*command, f"-L{root / 'lib'}", "-ltorch_cpu", "-lc10"], check=True)
        partial.rename(built)
    return built


@pytest.fixture
def simulated(run_python, library, packages, tmp_path):
    """Run a program on a machine with two GPUs."""

    def simulated(program: str, directory: Path = packages) -> None:
        run_python(PRELUDE + program, HERE, library, directory, tmp_path)

    return simulated


def test_host_arrays_are_taken_to_the_gpu_and_come_back(simulated):
    simulated("""
with load("mlp.pt2") as model:
    assert str(model.device) == "cuda:0"
    y = model(x)
    assert type(y) is np.ndarray and right(y)
    assert right(model.run([x])[0]) and right(model.boxed_run([x])[0]) and right(model(x[::1]))
    out = np.zeros((3, 1), np.float32)
    assert model(x, out=out) is out and right(out)
    (plan,) = model.plan(x)
    assert (plan.action, plan.reason) == ("copied", "it lies on the host, and is taken to cuda:0")
    refused(aoti.InputError, "a bound input is read at each call", lambda: model.bind(x))
    refused(aoti.InputError, "expected float32", lambda: model(x.astype("float64")))
    assert right(model(np.asfortranarray(x)))
""")


def test_arrays_on_the_gpu_are_shared_and_nothing_waits(simulated):
    simulated("""
with load("mlp.pt2") as model:
    device = on("cuda:0", x)
    gpus.gpu_finish(0)
    before = gpus.gpu_allocated(0)
    y = model(device)
    assert gpus.gpu_waiting(None) > 0, "a call waited for its result"
    assert gpus.gpu_allocated(0) == before + y.nbytes, "an input was copied"
    assert (y.device, y.shape, y.__dlpack_device__()) == ("cuda:0", (3, 1), (2, 0))
    assert right(y)
    (plan,) = model.plan(device)
    assert plan.action == "shared"
    out = on("cuda:0", np.zeros((3, 1), np.float32))
    bound = model.bind(device, out=out)
    assert bound() is out and right(out) and right(model.bind(device)())
    wide = on("cuda:0", np.repeat(x, 2, axis=1))
    result = model.infer([device])
    assert right(result.outputs[0]) and result.memory_bytes == y.nbytes
assert right(y), "outputs outlive the model"
""")


def test_tensors_on_the_gpu_say_so(simulated):
    simulated("""
tensor = on("cuda:1", x)
assert repr(tensor) == "aoti.Tensor(dtype=float32, shape=(3, 10), device='cuda:1')"
refused(TypeError, "call its numpy()", lambda: np.asarray(tensor))
refused(TypeError, "call its numpy()", lambda: memoryview(tensor))
assert np.array_equal(tensor.numpy(), x)
assert np.array_equal(np.from_dlpack(tensor, device="cpu"), x)
refused(BufferError, "lies on the cuda:1", lambda: tensor.__dlpack__(dl_device=(2, 0)))
assert np.array_equal(tensor.copied((1, 3)).numpy(), x)
again = aoti.Tensor.from_dlpack(Foreign(tensor))
assert again.data_ptr == tensor.data_ptr and again.device == "cuda:1"
refused(aoti.DeviceError, "cuda:7 cannot be used", lambda: tensor.moved("cuda:7"))
""")


def test_calls_run_on_the_stream_that_is_asked_for(simulated):
    simulated("""
class Torch:
    def __init__(self, handle): self.cuda_stream = handle
class Cupy:
    def __init__(self, handle): self.ptr, self.device_id = handle, 0
class Protocol:
    def __init__(self, handle): self.handle = handle
    def __cuda_stream__(self): return 0, self.handle
with load("mlp.pt2") as model:
    device = on("cuda:0", x)
    stream = gpus.gpu_stream(0)
    calls = [
        lambda s: model(device, stream=s),
        lambda s: model.run([device], stream=s)[0],
        lambda s: model.boxed_run([device], stream=s)[0],
        lambda s: model.infer([device], stream=s).outputs[0],
        lambda s: model.bind(device, stream=s)(),
    ]
    for kind in (int, Torch, Cupy, Protocol):
        for call in calls:
            gpus.gpu_finish(0)
            y = call(kind(stream))
            assert gpus.gpu_waiting(stream) > 0, (kind, call)
            assert right(y)
    y = model(x, stream=stream)  # nothing is left to wait for where numpy comes out
    assert right(y) and gpus.gpu_waiting(stream) <= 2
    gpus.gpu_finish(0)
    assert right(model(device, stream=0))
    other = gpus.gpu_stream(1)
    elsewhere = Torch(other); elsewhere.device = aoti.Device("cuda:1")
    refused(aoti.ConfigError, "belongs to cuda:1, but the model runs on cuda:0",
            lambda: model(device, stream=elsewhere))
    refused(aoti.DeviceError, "stream", lambda: model(device, stream=other))
    for nonsense in ("fast", 1.5, True, -1):
        refused(aoti.ConfigError, "a stream must be", lambda: model(device, stream=nonsense))
with load("mlp.pt2", stream=Protocol(stream)) as model:
    for call in (model, lambda d: model.run([d])[0], model.bind(device),
                 lambda d: model.submit(d).result()):
        gpus.gpu_finish(0)
        y = call(device) if call is not None and not type(call).__name__ == "Bound" else call()
        assert gpus.gpu_waiting(stream) > 0 and right(y)
with aoti.load(packages / "mlp.pt2") as model:
    refused(aoti.ConfigError, "which has no streams", lambda: model.run([x], stream=stream))
    refused(aoti.InputError, "stream", lambda: model(x, stream=stream))
refused(aoti.DeviceError, "cpu", lambda: aoti.load(packages / "mlp.pt2", stream=5))
""")


def test_arrays_are_waited_for_on_the_device(simulated):
    """Fails if the wrong stream is used: what is read too early is not there yet."""
    simulated("""
class Careless(Foreign):
    def __dlpack__(self, **options):
        return super().__dlpack__(**{**options, "stream": -1})
theirs, ours = gpus.gpu_stream(0), gpus.gpu_stream(0)
with load("mlp.pt2") as model:
    foreign = Foreign(on("cuda:0", x))
    assert right(model(foreign)) and foreign.asked == [1], "1 is CUDA's default stream"
    assert right(model(foreign, stream=ours)) and foreign.asked == [1, ours]
ones = np.ones((3, 4), np.float32)
with load("alias.pt2", stream=theirs) as first, load("alias.pt2", stream=ours) as second:
    for kind, good in ((Foreign, True), (Careless, False)):
        made = first(on("cuda:0", ones))[2]  # 1 + 1, in their stream, once somebody waits for it
        got = second(kind(made))[2]
        assert gpus.gpu_waiting(theirs) > 0 and gpus.gpu_waiting(ours) > 0
        assert np.allclose(got.numpy(), 3) == good, kind
        gpus.gpu_finish(0)
""")


def test_outputs_are_not_ready_before_somebody_waits(simulated):
    """What the test above stands on: in a stream that nobody waits for, nothing happens."""
    simulated("""
stream = gpus.gpu_stream(0)
with load("mlp.pt2", stream=stream) as model:
    model.run([on("cuda:0", x)])
    y = model(on("cuda:0", x))
    capsule = y.__dlpack__(stream=-1)
    assert gpus.gpu_waiting(stream) > 0
    unsynchronised = aoti.Tensor.from_dlpack(type("Capsule", (), {
        "__dlpack_device__": lambda self: (2, 0), "__dlpack__": lambda self, **_: capsule})())
    assert not right(unsynchronised), "was read although nobody had waited for it"
    capsule = y.__dlpack__(stream=1)
    waited = aoti.Tensor.from_dlpack(type("Capsule", (), {
        "__dlpack_device__": lambda self: (2, 0), "__dlpack__": lambda self, **_: capsule})())
    assert right(waited)
""")


def test_memory_is_not_reused_before_another_stream_is_done_with_it(simulated):
    simulated("""
theirs = gpus.gpu_stream(0)
with load("mlp.pt2") as first, load("mlp.pt2", stream=theirs) as second:
    y = second(on("cuda:0", x))
    rows = on("cuda:0", x)
    taken = aoti.Tensor.from_dlpack(Foreign(y))
    del y
    gpus.gpu_finish(0)
    assert right(taken)
    late = second(rows)  # reads it in their stream ...
    del rows
    on("cuda:0", x)      # ... after it was freed in ours, which comes to that first
    assert gpus.gpu_waiting(theirs) > 0
    assert right(late)
""")


def test_submitted_calls_run_on_the_stream_of_the_caller(simulated):
    simulated("""
import asyncio
with load("mlp.pt2", num_runners=2) as model:
    device = on("cuda:0", x)
    futures = [model.submit(device) for _ in range(4)]
    assert all(right(f.result()) for f in futures)
    assert right(model.submit(x).result())
    assert right(asyncio.run(model.run_async(device)))
""")


def test_each_gpu_has_its_models(simulated):
    simulated("""
start_device = gpus.gpu_device()
with load("mlp.pt2", device="cuda:1") as one, load("mlp.pt2", device_index=0) as zero:
    assert (str(one.device), str(zero.device)) == ("cuda:1", "cuda:0")
    assert right(one(x)) and right(zero(x)) and right(one(on("cuda:1", x)))
    assert gpus.gpu_device() == start_device
    refused(aoti.InputError, "runs on cuda:0, and this aoti.Tensor lies on cuda:1; move it to "
            "cuda:0", lambda: zero(on("cuda:1", x)))
    refused(aoti.InputError, "lies on cpu", lambda: zero(Host(x)))
    refused(aoti.InputError, "runs on cuda:0, and this simulation.Foreign lies on cuda:1",
            lambda: zero(Foreign(on("cuda:1", x))))
    refused(aoti.InputError, "the array lies on cuda:1, and the model runs on cuda:0",
            lambda: zero(x, out=on("cuda:1", np.zeros((3, 1), np.float32))))
    with aoti.load(packages / "mlp.pt2") as host:
        refused(aoti.InputError, "the model runs on the cpu, and this aoti.Tensor lies on cuda:0",
                lambda: host(on("cuda:0", x)))
refused(aoti.IncompatiblePackageError, "there is no cuda:5",
        lambda: load("mlp.pt2", device="cuda:5"))
from aoti.engine.devices import check_device
assert check_device("cuda:1") > 0 and check_device("cuda") > 0
""")


def test_weights_are_on_the_device_once_and_go_with_the_model(simulated, weight_packages):
    simulated(
        """
start_bytes = gpus.gpu_allocated(0)
one = load("blob.pt2")
held = gpus.gpu_allocated(0) - start_bytes
assert held == sum(c.nbytes for c in one.constants) > 0
four = aoti.load(scratch / "blob.pt2", num_runners=4)
assert gpus.gpu_allocated(0) - start_bytes == 2 * held, "once per model, not per runner"
four.close()
assert {c.device for c in one.constants} == {"cuda"}
y, weights = one(x), one.extract_constants()
assert all(type(w) is np.ndarray for w in weights.values())
with aoti.load(packages / "blob.pt2") as host:
    assert np.allclose(y, host(x), atol=1e-6)
    other = {name: value + 1 for name, value in weights.items()}
    one.update_weights(other)
    host.update_weights(other)
    assert np.allclose(one(x), host(x), atol=1e-6) and not np.allclose(one(x), y)
one.rollback()
assert np.allclose(one(x), y)
refused(aoti.ConstantError, "must be on cuda:0, not on cpu",
        lambda: one.load_constants(other, share=True))
shared = {name: on("cuda:0", value) for name, value in other.items()}
one.load_constants(shared, share=True)
one.load_constants({k: Foreign(v) for k, v in shared.items()})
refused(aoti.ConstantError, "cuda:1",
        lambda: one.load_constants({k: on("cuda:1", v) for k, v in other.items()}))
late = one(on("cuda:0", x), stream=gpus.gpu_stream(0))  # still to be computed
one.close()
assert not np.allclose(late.numpy(), y) and np.isfinite(late.numpy()).all()
del shared, late, one, four
gpus.gpu_finish(0)
assert gpus.gpu_allocated(0) == start_bytes
""",
        weight_packages,
    )


def test_torch_tensors_go_in_and_out_without_a_copy(simulated):
    simulated("""
import torch
torch.cuda._lazy_init = lambda: None  # asks for torch's own CUDA
def as_torch(tensor):
    return torch._C._from_dlpack(tensor.__dlpack__(max_version=(1, 0)))
with load("mlp.pt2") as model:
    device = as_torch(on("cuda:0", x))
    assert str(device.device) == "cuda:0"
    before = gpus.gpu_allocated(0)
    y = model(device)
    assert isinstance(y, torch.Tensor) and str(y.device) == "cuda:0"
    assert gpus.gpu_waiting(None) > 0 and gpus.gpu_allocated(0) == before + y.nbytes
    assert right(aoti.Tensor.from_dlpack(y))
    assert right(model.run([device], outputs="numpy")[0])
    stream = gpus.gpu_stream(0)
    y = model(device, stream=stream)
    assert gpus.gpu_waiting(stream) > 0
    gpus.gpu_finish(0)
    assert right(aoti.Tensor.from_dlpack(y))
    assert right(aoti.Tensor.from_dlpack(model.boxed_run([device])[0]))
    refused(aoti.InputError, "this torch.Tensor lies on cpu; move it to cuda:0",
            lambda: model(torch.from_numpy(x)))
with aoti.load(packages / "mlp.pt2") as host:
    refused(aoti.InputError, "runs on the cpu, and this torch.Tensor lies on cuda:0",
            lambda: host(device))
""")


def test_threads_on_streams_of_their_own(simulated):
    simulated("""
with load("mlp.pt2", num_runners=4) as model:
    wrong = []
    def work(seed):
        stream = gpus.gpu_stream(0)
        rows = np.random.default_rng(seed).standard_normal((3, 10), dtype=np.float32)
        with aoti.load(packages / "mlp.pt2") as host:
            wanted = host(rows)
        for n in range(20):
            y = model(on("cuda:0", rows), stream=stream) if n % 2 else model(rows, stream=stream)
            if not np.allclose(y.numpy() if n % 2 else y, wanted, atol=1e-6):
                wrong.append((seed, n))
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not wrong
""")


def test_indices_are_looked_at_where_that_needs_no_waiting(simulated):
    simulated("""
with load("lookup.pt2") as model:
    good = np.array([0, 4, 2])
    assert model(good).shape == (3, 4) and model(on("cuda:0", good)).shape == (3, 4)
    refused(aoti.InputError, "expected values in", lambda: model(np.array([0, 5])))
    assert model.run([good])[0].shape == (3, 4)
""")


def test_without_the_libraries_of_a_gpu_its_arrays_are_none(run_python, packages):
    run_python(
        """
import sys, numpy as np, aoti
class Far:
    def __dlpack_device__(self): return (2, 0)
    def __dlpack__(self, **_): raise AssertionError("was asked for its memory")
model = aoti.load(sys.argv[1])
for call in (lambda: model(Far()), lambda: model.load_constants({"x": Far()}),
             lambda: aoti.Tensor.from_dlpack(Far())):
    try:
        call()
    except (aoti.InputError, aoti.ConstantError, BufferError):
        continue
    raise AssertionError
""",
        packages / "mlp.pt2",
    )
