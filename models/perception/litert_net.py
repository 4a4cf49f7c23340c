"""The net of a .tflite file in LiteRT, Google's own runtime: on a core four to six times as fast as torch.

models/perception/tflite_net.py runs the same file in torch, for GPUs and gradients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.errors import InvalidFile, InvalidSettings
from models.perception.interfaces import InferenceSettings
from models.perception.tflite_file import TfliteSignature, read_tflite_graph


class LiteRtNet:
    """models.perception.interfaces.FixedSizeNet. One image at a time on one thread: what is found in an image
    depends neither on the others nor on the number of cores."""

    def __init__(self, path: Path, signature: TfliteSignature):
        # says what is wrong with a file, where LiteRT may end the process, and that LiteRT is missing
        read_tflite_graph(path, signature)
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=1)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise InvalidFile(f"{path.name}: LiteRT cannot run it: {str(error).splitlines()[0]}") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [one["index"] for one in self._interpreter.get_output_details()]
        self.input_side, self._output_shapes = signature.side, signature.outputs
        self.device = torch.device("cpu")

    def configure_inference(self, how: InferenceSettings) -> None:
        if how.device != "cpu" or how.dtype != "float32":
            raise InvalidSettings(
                f"LiteRT runs on the CPU in float32, not on {how.device} in {how.dtype}; use --set "
                "perception.backend=torch"
            )

    def __call__(self, images: Tensor) -> list[Tensor]:
        rows = images.permute(0, 2, 3, 1).contiguous().numpy()  # (B,S,S,3)
        found = [np.empty((len(rows), *shape), np.float32) for shape in self._output_shapes]
        for n, row in enumerate(rows):
            self._interpreter.set_tensor(self._input, row[None])
            self._interpreter.invoke()
            for values, index in zip(found, self._outputs, strict=True):
                values[n] = self._interpreter.get_tensor(index)[0]
        return [torch.from_numpy(values) for values in found]
