"""Streams: work goes where it is asked for, waits for what it needs, and the host for nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import aoti

LONG = 200_000_000  # cycles: about a tenth of a second


def late(torch, stream, like):
    """A tensor of ones that a stream computes after a while; zeros until then."""
    x = torch.zeros_like(like)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG)
        x.fill_(1)
    return x


@pytest.fixture
def same(gpu_packages):
    """A model that gives its input, and one more."""
    with aoti.load(gpu_packages / "same.pt2") as model:
        yield model


def test_the_current_stream_is_the_default(same, examples, torch):
    stream = torch.cuda.Stream()
    x = late(torch, stream, examples["same"])
    with torch.cuda.stream(stream):
        got = same(x)["more"]
    assert not stream.query(), "the call waited"
    stream.synchronize()
    assert bool((got == 2).all())


@pytest.mark.parametrize("form", ["torch", "int", "protocol"])
def test_a_stream_that_is_given_is_used(same, examples, torch, form):
    stream = torch.cuda.Stream()

    class Protocol:
        def __cuda_stream__(self):
            return 0, stream.cuda_stream

    given = {"torch": stream, "int": stream.cuda_stream, "protocol": Protocol()}[form]
    x = late(torch, stream, examples["same"])
    got = same(x, stream=given)["more"]
    assert not stream.query(), "the call waited"
    stream.synchronize()
    assert bool((got == 2).all())
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_another_stream_comes_too_early(same, examples, torch):
    """What the tests above stand on."""
    stream, other = torch.cuda.Stream(), torch.cuda.Stream()
    x = late(torch, stream, examples["same"])
    got = same(x, stream=other)["more"]
    other.synchronize()
    assert not bool((got == 2).all())
    torch.cuda.synchronize()


def test_who_takes_an_output_over_waits_for_it(gpu_packages, examples, torch):
    stream = torch.cuda.Stream()
    x = late(torch, stream, examples["same"])
    with aoti.load(gpu_packages / "same.pt2", stream=stream, outputs="dlpack") as model:
        got = model(x)["more"]
        assert not stream.query(), "the call waited"
        taken = torch.from_dlpack(got)  # on the default stream
        assert bool((taken == 2).all())


def test_arrays_of_other_libraries_are_waited_for(same, examples, torch):
    stream = torch.cuda.Stream()
    x = late(torch, stream, examples["same"])

    class Foreign:
        def __dlpack_device__(self):
            return x.__dlpack_device__()

        def __dlpack__(self, **options):
            with torch.cuda.stream(stream):  # what its library works on
                return x.__dlpack__(**options)

    got = same(Foreign())["more"]
    assert bool((torch.from_dlpack(got) == 2).all())


def test_a_call_does_not_wait(mlp, rows, torch):
    x = torch.from_numpy(rows).cuda()
    mlp(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        mlp(x)
        mlp.run([x])
        mlp.bind(x)()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_threads_on_streams_of_their_own(gpu_packages, modules, torch):
    wrong: list[object] = []
    with aoti.load(gpu_packages / "mlp.pt2", num_runners=4) as model:

        def work(seed: int) -> None:
            stream = torch.cuda.Stream()
            generator = torch.Generator("cuda:0").manual_seed(seed)
            with torch.cuda.stream(stream), torch.no_grad():
                for n in range(200):
                    x = torch.randn(1 + n % 16, 10, device="cuda:0", generator=generator)
                    try:
                        torch.testing.assert_close(
                            model(x), modules["mlp"](x), rtol=1e-4, atol=1e-5
                        )
                    except Exception as error:
                        wrong.append(error)
                        return

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_submitted_calls_follow_the_caller(same, examples, torch):
    stream = torch.cuda.Stream()
    x = late(torch, stream, examples["same"])
    with torch.cuda.stream(stream):
        got = same.submit(x).result()["more"]
    stream.synchronize()
    assert bool((got == 2).all())


def test_numpy_is_there_when_the_call_returns(mlp, rows, wanted, torch):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(LONG)
    np.testing.assert_allclose(mlp(rows, stream=stream), wanted, rtol=1e-4, atol=1e-5)
