"""Runs an onnxruntime session on torch tensors, without copies and with few calls.

Knows onnxruntime's and torch's names of types. Does not know what the graph computes.

A step of the model takes some forty small tensors and gives as many: one by one, through numpy,
they cost about as much as what is computed of them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TYPES = {
    "tensor(float)": (torch.float32, np.float32),
    "tensor(double)": (torch.float64, np.float64),
    "tensor(int64)": (torch.int64, np.int64),
    "tensor(bool)": (torch.bool, np.bool_),
}


class Runner:
    """A session as a function of a list of tensors.

    Args:
        session: Of tensors alone, of the types in `TYPES`, on the CPU.
    """

    def __init__(self, session: "InferenceSession") -> None:
        from onnxruntime import RunOptions
        from onnxruntime.capi import onnxruntime_pybind11_state as native

        self._session, self._vector, self._options = session, native.OrtValueVector, RunOptions()
        here = native.OrtDevice(native.OrtDevice.cpu(), native.OrtDevice.default_memory(), 0)
        given, found = session.get_inputs(), session.get_outputs()
        self.inputs = [value.name for value in given]
        self.outputs = [value.name for value in found]
        """In the order of the lists."""
        self._dtypes = [TYPES[value.type][0] for value in given]
        self._types = [TYPES[value.type][1] for value in given]
        self._places, self._places_found = [here] * len(given), [here] * len(found)

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Return what the graph makes of its inputs.

        Args:
            given: In the order of `inputs`, with as many dimensions as the graph's.

        Raises:
            ValueError: If a tensor has another type, or is not on the CPU.
        """
        if [tensor.dtype for tensor in given] != self._dtypes:
            raise ValueError(self._wrong(given))
        # What is not contiguous is copied, and lives until the graph has run.
        given = [tensor.contiguous() for tensor in given]
        inputs, outputs = self._vector(), self._vector()
        inputs.push_back_batch(
            given,
            [tensor.data_ptr() for tensor in given],
            self._types,
            [tensor.shape for tensor in given],
            self._places,
        )
        self._session.run_with_ortvaluevector(
            self._options, self.inputs, inputs, self.outputs, outputs, self._places_found
        )
        found: list[Tensor] = outputs.to_dlpacks(from_dlpack)
        return found
