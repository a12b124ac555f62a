"""Models on a Ray cluster: Ray Data and Ray Serve. The cluster is one tree of processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import aoti
from aoti.serving.ray import Predictor, deployment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.skipif(
        not find_spec("ray"),
        reason="needs Ray, with 50 packages of its own: pip install 'aoti-runtime[ray]'",
    ),
]


@pytest.fixture(scope="module")
def ray():
    """A running cluster."""
    environment = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in environment.items():
            patch.setenv(name, value)
        import ray
        from ray import serve

        ray.init(num_cpus=6, runtime_env={"env_vars": environment}, log_to_driver=False)
        ray.data.DataContext.get_current().execution_options.preserve_order = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        serve.shutdown()
        ray.shutdown()


def columns(batch):
    """Rows for the 10-16-1 network, with their numbers."""
    rows = np.sin(np.arange(10) + batch["id"][:, None]).astype(np.float32)
    return {"x": rows, "row": batch["id"]}


def test_rows_come_out_in_their_order(ray, weight_packages):
    count, path = 100_000, weight_packages / "blob.pt2"

    class Named(Predictor):
        """Says which process computed a row, and whether its input was copied."""

        def __call__(self, batch):
            (plan,) = self.model.plan(batch["x"])
            facts = {"pid": os.getpid(), "copied": plan.action != "shared"}
            rows = len(batch["row"])
            return {**super().__call__(batch), **{k: np.full(rows, v) for k, v in facts.items()}}

    rows = ray.data.range(count, override_num_blocks=32).map_batches(columns).materialize()
    result = rows.map_batches(
        Named,
        fn_constructor_args=(str(path),),
        fn_constructor_kwargs={"keep": ["row"]},
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=1000,
    )
    batches = list(result.iter_batches(batch_size=None))
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert found["row"].tolist() == list(range(count))
    assert len(set(found["pid"])) == 2
    assert not found["copied"].any()
    with aoti.load(path) as model:
        every = columns({"id": np.arange(count)})["x"].reshape(-1, 1000, 10)
        assert np.allclose(found["output"], np.concatenate([model(x) for x in every]))


def test_workers_of_a_node_share_the_weights(ray, weight_packages):
    class Sized(Predictor):
        def weights(self):
            """Bytes of the mapped weights, and this process's share of their memory."""
            info = self.model.info()
            smaps = Path("/proc/self/smaps").read_text().split("VmFlags")
            sizes = [re.search(r"\nPss: +(\d+)", part) for part in smaps
                     if str(info.weights_file) in part]  # fmt: skip
            return info.weights_bytes, sum(1024 * int(size[1]) for size in sizes)

    make = ray.remote(num_cpus=0)(Sized).remote
    workers = [make(str(weight_packages / "table50.pt2"), warmup=True) for _ in range(2)]
    ray.get([worker.weights.remote() for worker in workers])
    (size, first), (_, second) = ray.get([worker.weights.remote() for worker in workers])
    for worker in workers:
        ray.kill(worker)
    assert size >= 50 << 20
    assert 0.9 * size < first + second < 1.1 * size


def example(ray, name, *arguments):
    """Run an example on the cluster; give what it prints."""
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_datasets(ray, weight_packages, tmp_path):
    made = columns({"id": np.arange(1000)})
    rows = ray.data.from_items([{"x": x, "id": n} for x, n in zip(*made.values(), strict=True)])
    rows.write_parquet(str(tmp_path / "in"))
    path = weight_packages / "blob.pt2"
    example(ray, "ray_data.py", path, tmp_path / "in", tmp_path / "out")
    found = sorted(
        ray.data.read_parquet(str(tmp_path / "out")).take_all(), key=lambda row: row["id"]
    )
    assert [row["id"] for row in found] == list(range(1000))
    with aoti.load(path) as model:
        assert np.allclose([row["output"] for row in found], model(made["x"]))


# -- Ray Serve ----------------------------------------------------------------------------------


NAME = "minilm"  # in the example
ROWS = np.ones((256, 10), np.float32)


def version_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@pytest.fixture(scope="module")
def weights(weight_packages, state, other, tmp_path_factory):
    """Two files of weights, and what the network answers with each to any row of ones."""
    save_file = pytest.importorskip("safetensors.numpy").save_file
    directory = tmp_path_factory.mktemp("weights")
    found = []
    for name, arrays in (("first", state), ("second", other)):
        path = directory / f"{name}.safetensors"
        save_file(arrays, path)
        with aoti.load(weight_packages / "blob.pt2", weights=path) as model:
            found.append((path, float(model(ROWS[:1])[0, 0])))
    return found


@pytest.fixture(scope="module")
def deploy(ray, weight_packages, tmp_path_factory):
    """Deploy the network with weights from a file, or change them, as a user does it."""
    import yaml
    from ray import serve

    config = tmp_path_factory.mktemp("serve") / "config.yaml"

    def deploy(path, until="RUNNING"):
        document = yaml.safe_load((EXAMPLES / "ray_serve.yaml").read_text())
        (application,) = document["applications"]
        application["args"]["model"] = str(weight_packages / "blob.pt2")
        application["deployments"][0]["user_config"]["weights"] = str(path)
        config.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "ray.serve.scripts", "deploy", config]
        subprocess.run(command, check=True, capture_output=True)
        end = time.monotonic() + 90
        while getattr(app := serve.status().applications.get(NAME), "status", None) != until:
            assert time.monotonic() < end, app
            time.sleep(0.1)
        return serve.get_app_handle(NAME)

    return deploy


@pytest.fixture(scope="module")
def handle(deploy, weights):
    """The handle of two replicas with the first weights."""
    return deploy(weights[0][0])


def get(path, document=None):
    """The content of an answer by HTTP."""
    data = None if document is None else json.dumps(document).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:8000{path}", data, timeout=30) as answer:
        return json.load(answer)


def by_http(model=NAME, **changes):
    """The version of the weights, and the values of an answer to `ROWS`."""
    tensor = {"name": "x", "shape": ROWS.shape, "datatype": "FP32", "data": ROWS.tolist()}
    answer = get(f"/v2/models/{model}/infer", {"inputs": [{**tensor, **changes}]})
    (output,) = answer["outputs"]
    assert output["shape"] == [len(ROWS), 1]
    return answer["parameters"]["weights_version"], output["data"]


def by_handle(handle):
    answer = handle.infer.remote(x=ROWS).result(timeout_s=30)
    return answer.weights_version, answer.result


@contextmanager
def under_load(*asks):
    """Clients that ask all the time; gives the list of their answers."""
    answers, over = [], threading.Event()

    def client(ask):
        while not over.is_set():
            answers.append(ask())

    with ThreadPoolExecutor(len(asks)) as pool:
        clients = [pool.submit(client, ask) for ask in asks]
        try:
            yield answers
        finally:
            over.set()
        for done in clients:
            done.result()


def check(answers, weights):
    """Check that all values of each answer are of the version that it names; count these."""
    values = {version_of(path): value for path, value in weights}
    for version, found in answers:
        assert np.allclose(found, values[version])
    return Counter(version for version, _ in answers)


def test_settings_are_checked_before_anything_is_deployed():
    with pytest.raises(aoti.ConfigError, match="did you mean 'weights'"):
        deployment("model.pt2", user_config={"weight": "w"})
    with pytest.raises(aoti.ConfigError, match="the configuration names no model"):
        deployment(aoti.Config(num_runners=2))


def test_a_handle_and_http_give_the_answers_of_the_model(handle, weights, weight_packages):
    (path, value), _ = weights
    answer = handle.infer.remote(x=ROWS).result()
    assert np.allclose(answer.result, value)
    assert answer.model_version == version_of(weight_packages / "blob.pt2")
    assert answer.weights_version == version_of(path)
    assert check([by_http()], weights) == {answer.weights_version: 1}
    metadata = get(f"/v2/models/{NAME}")
    assert metadata["versions"] == [answer.model_version]
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 10]}]
    assert get("/v2/health/live") == {"live": True}
    assert get("/v2/health/ready") == {"ready": True}


def test_the_example_of_requests(ray, weight_packages):
    printed = example(ray, "ray_serve.py", weight_packages / "blob.pt2")
    assert version_of(weight_packages / "blob.pt2") in printed


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"shape": [1, 11], "data": [1] * 11}, 400, "dimension 1 must be 10, not 11"),
        ({"datatype": "FP64"}, 400, "expected float32"),
        ({"name": "y"}, 400, "the model has no input 'y'; it has x"),
        ({"shape": "ab"}, 400, "the request cannot be read: inputs.0.shape"),
        ({"data": [1]}, 400, "the data has 1"),
        ({"model": "other"}, 404, "there is no model 'other'; there is 'minilm'"),
    ],
)
def test_what_the_model_does_not_take_is_refused(handle, changes, status, message):
    with pytest.raises(urllib.error.HTTPError) as refused:
        by_http(**changes)
    assert refused.value.code == status
    assert message in json.load(refused.value)["error"]


def test_a_handle_raises_the_error_of_the_model(handle):
    with pytest.raises(aoti.InputError, match="dimension 1 must be 10, not 11"):
        handle.infer.remote(np.ones((1, 11), np.float32)).result()


def test_new_weights_are_not_mixed_with_old_ones(handle, deploy, weights):
    clients = [partial(by_handle, handle), partial(by_handle, handle), by_http, by_http]
    with under_load(*clients) as answers:
        for path, _ in reversed(weights):
            deploy(path)
    assert len(check(answers, weights)) == 2


def test_weights_that_do_not_fit_leave_the_others_serving(handle, deploy, weights, tmp_path):
    with under_load(partial(by_handle, handle)) as answers:
        deploy(tmp_path / "none.safetensors", until="DEPLOY_FAILED")
        deploy(weights[0][0])
    assert len(check(answers, weights)) == 1


def replicas():
    """The processes of the replicas."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::ServeReplica:minilm:minilm"):
                yield int(path.parent.name)


def test_a_killed_replica_loses_no_request_that_is_tried_again(ray, handle, weights):
    failures = []

    def retried(ask):
        for _ in range(100):
            try:
                return ask()
            except (OSError, ray.exceptions.RayError) as error:
                failures.append(error)
                time.sleep(0.1)
        raise AssertionError(failures)

    before = set(replicas())
    clients = [partial(by_handle, handle), partial(by_handle, handle), by_http, by_http]
    with under_load(*(partial(retried, ask) for ask in clients)) as answers:
        time.sleep(1)
        count = len(answers)
        os.kill(min(before), signal.SIGKILL)
        end = time.monotonic() + 60
        while len(set(replicas()) | before) < 3:  # another has taken its place
            assert time.monotonic() < end
            time.sleep(0.1)
    assert count < len(answers)
    check(answers, weights)
