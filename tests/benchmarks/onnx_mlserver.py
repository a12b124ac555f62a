"""MiniLM by ONNX Runtime behind MLServer. tests/benchmarks/serving.py runs it.

usage: python onnx_mlserver.py MINILM.onnx --http-port PORT --grpc-port PORT
"""

from __future__ import annotations

import argparse
import asyncio

import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    """A session of one thread, with one run at a time."""

    async def load(self) -> bool:
        """Load the model that the settings name."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.settings.parameters.uri
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._one_run = asyncio.Lock()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a request, or several that MLServer has joined."""
        inputs = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        async with self._one_run:
            arrays = await asyncio.to_thread(self._session.run, None, inputs)
        names = [value.name for value in self._session.get_outputs()]
        outputs = [NumpyCodec.encode_output(*pair) for pair in zip(names, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def main() -> None:
    """Serve what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    arguments = parser.parse_args()
    settings = Settings(
        debug=False,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_endpoint=None,
        parallel_workers=0,  # as the other servers: all in one process
        load_models_at_startup=False,
    )
    model = ModelSettings(
        name="minilm",
        implementation=Model,
        parameters={"uri": arguments.model},
        max_batch_size=32,
        max_batch_time=0.002,
    )
    asyncio.run(MLServer(settings).start([model]))


if __name__ == "__main__":
    main()
