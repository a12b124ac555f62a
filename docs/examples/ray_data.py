"""Run a model over a dataset on a Ray cluster.

usage: python docs/examples/ray_data.py MODEL.pt2 IN.parquet OUT

A column of IN has the name and the dtype of each input of the model; ``id`` is kept.
"""

from __future__ import annotations

import sys

import ray

from aoti.serving.ray import Predictor

model, source, target = sys.argv[1:]
rows = ray.data.read_parquet(source)
found = rows.map_batches(
    Predictor,
    fn_constructor_args=(model,),
    fn_constructor_kwargs={"keep": ["id"], "warmup": True},
    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=8),
    batch_size=256,
    num_cpus=1,
)
found.write_parquet(target)
