"""Calls of a model joined into runs: the right answers for the right callers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import aoti

pytestmark = pytest.mark.timeout(120)

SOON = aoti.Batching(max_delay=0.02)
WAIT = aoti.Batching(max_size=4, max_delay=60)  # until there are four rows


def rows(count, width=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)


def tagged(number, scale=1.0):
    """Arguments of the model `tagged` whose results show whose they are."""
    count = 1 + number % 3
    x = np.arange(3 * count, dtype=np.float32).reshape(count, 3) + number
    return x, np.full(count, number), np.full(3, scale, np.float32)


def check_tagged(result, x, ids, scale):
    assert np.allclose(result["scaled"], x * scale + ids[:, None])
    assert np.allclose(result["sums"], x.sum(1))


@pytest.fixture
def load(batch_packages):
    with contextlib.ExitStack() as stack:

        def load(name, batching=SOON, **options):
            path = batch_packages / f"{name}.pt2"
            return stack.enter_context(aoti.load(path, batching=batching, **options))

        yield load


# -- answers -------------------------------------------------------------------------------------


def test_every_caller_gets_what_a_call_gives_in_fewer_runs(load):
    model = load("wide")
    arrays = [rows(1 + n % 3, 4, n) for n in range(60)]
    wanted = [model(array) for array in arrays]
    futures = [model.submit(array) for array in arrays]
    for future, want in zip(futures, wanted, strict=True):
        assert np.allclose(future.result(), want, atol=1e-4)
    info = model.info()
    assert (info.calls, info.max_rows) == (60, 32)
    assert info.runs <= 10
    assert info.run_seconds > 0


@pytest.mark.parametrize("num_runners", [1, 3])
def test_many_threads_and_loops_in_any_order(load, num_runners):
    model = load("tagged", aoti.Batching(max_delay=0.001), num_runners=num_runners)

    def thread(first):
        order = random.Random(first)
        futures = []
        for number in range(first, first + 100):
            arguments = tagged(number, 1.0 + number % 2)
            futures.append((model.submit(*arguments), arguments))
            if len(futures) > order.randrange(8):
                future, given = futures.pop(order.randrange(len(futures)))
                check_tagged(future.result(30), *given)
        for future, given in futures:
            check_tagged(future.result(30), *given)

    async def call(number):
        await asyncio.sleep(random.random() * 0.01)
        arguments = tagged(number)
        check_tagged(await model.run_async(*arguments), *arguments)

    async def loop(first):
        await asyncio.gather(*(call(first + n) for n in range(100)))

    with ThreadPoolExecutor(8) as pool:
        threads = [pool.submit(thread, 1000 * n) for n in range(6)]
        loops = [pool.submit(asyncio.run, loop(1000 * n)) for n in range(6, 8)]
        for job in (*threads, *loops):
            job.result()
    info = model.info()
    assert (info.calls, info.running, info.waiting) == (800, 0, 0)
    assert info.runs < 800


@pytest.mark.parametrize("batching", [None, SOON])
def test_a_queued_call_knows_the_weights_that_it_ran_with(load, batching):
    """The weights are replaced all the time, also while joined runs are verified."""
    model = load("weighted", batching, num_runners=2)
    x, over = np.ones((1, 3), np.float32), threading.Event()

    def update():
        for number in itertools.takewhile(lambda _: not over.is_set(), itertools.count(2)):
            weights = {"weight": np.full(3, number, np.float32)}
            assert model.weights.update(weights, keep=False) == number

    async def ask():
        runs = [model.infer_async([x * (1 + n % 2)]) for n in range(100)]
        results = await asyncio.gather(*runs)
        return [(r.outputs[0][0, 0] / (1 + n % 2), r.version) for n, r in enumerate(results)]

    updates = threading.Thread(target=update)
    updates.start()
    try:
        found = [pair for _ in range(20) for pair in asyncio.run(ask())]
    finally:
        over.set()
        updates.join()
    assert all(value == version for value, version in found)
    assert len({version for _, version in found}) > 1
    info = model.info()
    assert info.run_sizes.keys() == {1} if batching is None else max(info.run_sizes) > 1
    assert sum(size * runs for size, runs in info.run_sizes.items()) == info.calls == 2000


def test_inputs_without_rows_are_those_of_the_caller(load):
    model = load("tagged", aoti.Batching(max_size=8, max_delay=0.05))
    calls = [tagged(3 * n, 1.0 + n % 2) for n in range(8)]  # a row each, and two scales
    futures = [model.submit(*call) for call in calls]
    for future, call in zip(futures, calls, strict=True):
        check_tagged(future.result(), *call)
    assert model.info().runs == 2


def test_rows_in_other_dimensions_are_named(load):
    model = load("time_first", aoti.Batching(max_size=64, max_delay=0.05, dim="batch"))
    make = np.random.default_rng(0).standard_normal
    calls = []
    for n in range(12):
        time, batch = 2 + n % 2, 1 + n % 3
        shapes = ((time, batch, 3), (1, batch, 3), (2 * batch, 3))
        calls.append([make(shape, dtype=np.float32) for shape in shapes])
    futures = [model.submit(*call) for call in calls]
    for future, call in zip(futures, calls, strict=True):
        for got, want in zip(future.result(), model(*call), strict=True):
            assert np.allclose(got, want, atol=1e-5)
            assert got.strides == want.strides
    assert model.info().runs == 2


def test_results_are_the_callers_own(load):
    model = load("layouts", WAIT)
    x = rows(4)
    futures = [model.submit(x[n : n + 1]) for n in range(4)]
    results = [future.result() for future in futures]
    wanted = [model(x[n : n + 1]) for n in range(4)]
    for n, outputs in enumerate(results):
        for output, want in zip(outputs, wanted[n], strict=True):
            assert output.tolist() == want.tolist()
        for output in outputs:
            output[...] = -1  # must not reach the others
    model.close()
    assert results[3][1].tolist() == [[-1] * 3]


def test_the_library_of_the_inputs_is_that_of_the_results(load):
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    model = load("wide", aoti.Batching(max_delay=0.05))
    x = rows(2, 4)
    want = model(x)
    arrays = [
        x,
        torch.from_numpy(x),
        jax.numpy.asarray(x),
        aoti.Tensor.from_dlpack(torch.from_numpy(x)),
    ]
    futures = [model.submit(array) for array in arrays * 4]
    kinds = [np.ndarray, torch.Tensor, jax.Array, aoti.Tensor]
    for n, future in enumerate(futures):
        result = future.result()
        assert isinstance(result, kinds[n % 4])
        assert np.allclose(np.asarray(result), want, atol=1e-4)
    assert model.info().runs == 3 + 4  # an aoti.Tensor cannot be cut
    fixed = load("wide", aoti.Batching(max_delay=0.05), outputs="torch")
    futures = [fixed.submit(array) for array in arrays * 2]
    assert all(isinstance(future.result(), torch.Tensor) for future in futures)
    assert fixed.info().runs == 1


def test_a_call_with_many_rows_runs_alone(load):
    model = load("wide", aoti.Batching(max_size=4, max_delay=60))
    x = rows(100, 4)
    assert np.allclose(model.submit(x).result(10), model(x))


def test_plain_calls_are_not_joined(load):
    model = load("wide", WAIT)
    x = rows(1, 4)
    assert model.run([x])[0].shape == model(x).shape == (1, 2)
    assert model.info().calls == 0


# -- bad requests --------------------------------------------------------------------------------


def test_a_bad_request_is_refused_when_it_is_submitted(load):
    model = load("wide", WAIT)
    good = [model.submit(rows(1, 4, n)) for n in range(3)]
    for bad, message in (
        (rows(1, 5), "dimension 1 must be 4, not 5"),
        (rows(1, 4).astype(np.float64), "expected float32"),
        (rows(300, 4), "but must be in 1..256"),
        (None, "expected an array"),
    ):
        with pytest.raises(aoti.InputError, match=message):
            model.submit(bad)
        with pytest.raises(aoti.InputError, match=message):
            asyncio.run(model.run_async(bad))
    assert (model.info().waiting, model.info().calls) == (3, 0)
    good.append(model.submit(rows(1, 4, 3)))
    for n, future in enumerate(good):
        assert np.allclose(future.result(10), model(rows(1, 4, n)), atol=1e-4)


def test_a_run_that_the_model_refuses_is_made_one_by_one(load):
    """An index that was changed while the call waited: its call alone fails."""
    model = load("lookup", WAIT)
    indices = [np.array([n]) for n in range(4)]
    futures = [model.submit(index) for index in indices[:3]]
    indices[1][0] = 99
    futures.append(model.submit(indices[3]))
    for n in (0, 2, 3):
        assert futures[n].result(10).tolist() == model(indices[n]).tolist()
    with pytest.raises(aoti.InputError, match=r"expected values in 0\.\.9, .* got 99"):
        futures[1].result(10)


def test_a_model_that_mixes_rows_is_found_out(load):
    model = load("mixing", aoti.Batching(max_size=4, max_delay=0.5))
    same = [model.submit(np.ones((1, 4), np.float32)) for _ in range(4)]
    assert all(future.result(10).tolist() == [[0] * 4] for future in same)
    assert model.info().max_rows == 4  # equal rows show nothing
    with pytest.warns(UserWarning, match="depend on what else is in a batch"):
        different = [model.submit(rows(1, 4, n)) for n in range(4)]
        assert all(future.result(10).tolist() == [[0] * 4] for future in different)
    assert model.info().max_rows == 1
    runs = model.info().runs
    futures = [model.submit(rows(1, 4, n)) for n in range(4)]
    assert all(future.result(10).tolist() == [[0] * 4] for future in futures)
    assert model.info().runs == runs + 4


# -- waiting -------------------------------------------------------------------------------------


def test_timeouts_and_cancellations_withdraw_a_call_that_waits_for_others(load):
    model = load("wide", WAIT, timeout=0.05)

    async def main():
        with pytest.raises(aoti.RunTimeoutError, match="it was withdrawn"):
            await model.run_async(rows(1, 4))
        task = asyncio.create_task(model.run_async(rows(1, 4)))
        await asyncio.sleep(0.01)
        assert model.info().waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert model.info().waiting == 0
    futures = [model.submit(rows(1, 4, n)) for n in range(5)]
    assert futures[0].result(10).shape == (1, 2)
    assert not futures[4].done()
    model.close()
    assert isinstance(futures[4].exception(10), aoti.ModelClosedError)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_size": 1}, "max_size must be a number of rows from 2 to 1073741824, not 1"),
        ({"max_size": 2**70}, "not a number of 71 bits"),
        ({"max_delay": -1}, "max_delay must be a number of seconds from 0 to 3600, not -1"),
        ({"max_delay": float("nan")}, "not nan"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(aoti.ConfigError, match=message):
        aoti.Batching(**options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wide", {"batching": aoti.Batching(257)}, "the model accepts at most 256 rows, not 257"),
        ("wide", {"batching": aoti.Batching(dim="time")}, "one of 'batch', not 'time'"),
        ("wide", {"batching": SOON, "validate": False}, "batching needs the checks of calls"),
        ("wide", {"batching": 32}, "batching must be an aoti.Batching, not 32"),
        ("time_first", {"batching": SOON}, r"name the dimension .* with one of 'batch'"),
    ],
)
def test_what_cannot_be_joined_as_asked_is_refused_at_load(batch_packages, name, options, message):
    with pytest.raises(aoti.ConfigError, match=message):
        aoti.load(batch_packages / f"{name}.pt2", **options)


def test_the_model_limits_the_rows_by_default(load):
    assert load("wide").info().max_rows == 32
    assert load("wide", aoti.Batching(max_size=200)).info().max_rows == 200
    assert load("wide", None).info().max_rows == 1


def test_settings_and_pickles_keep_it(batch_packages, tmp_path, monkeypatch):
    path = tmp_path / "aoti.toml"
    path.write_text(f'model = "{batch_packages}/wide.pt2"\n[batching]\nmax_size = 16\n')
    monkeypatch.setenv("AOTI_BATCHING_MAX_DELAY", "0.5")
    config = aoti.Config.from_file(path)
    assert config.batching == aoti.Batching(max_size=16, max_delay=0.5)
    with aoti.load(config) as model, pickle.loads(pickle.dumps(model)) as again:
        assert again.info().max_rows == 16
    path.write_text("[batching]\nmax_size = 1\n")
    with pytest.raises(aoti.ConfigError, match="max_size must be"):
        aoti.Config.from_file(path)
    path.write_text("[batching]\nmax_sice = 3\n")
    with pytest.raises(aoti.ConfigError, match=r"did you mean 'batching\.max_size'"):
        aoti.Config.from_file(path)
    described = tmp_path / "models/net"
    described.mkdir(parents=True)
    (described / "model.toml").write_text("[load.batching]\nmax_size = 8\n")
    (described / "wide.pt2").symlink_to(batch_packages / "wide.pt2")
    monkeypatch.setenv("AOTI_MODELS_DIR", str(described.parent))
    with aoti.load("net") as model:
        assert model.info().max_rows == 8
