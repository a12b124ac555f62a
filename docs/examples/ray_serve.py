"""Serve a model on a Ray cluster, and ask it.

usage: python docs/examples/ray_serve.py MODEL.pt2

The model takes rows of ten numbers.
"""

from __future__ import annotations

import sys

import numpy as np
from ray import serve

from aoti.serving.ray import deployment

application = deployment(
    sys.argv[1],
    name="rows",
    autoscaling_config={"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 16},
    max_ongoing_requests=32,
    user_config={"batching": {"max_size": 32}},
)
handle = serve.run(application, name="rows", route_prefix="/rows")
answer = handle.infer.remote(np.ones((2, 10), np.float32)).result()
print(answer.result, answer.model_version, answer.weights_version)
