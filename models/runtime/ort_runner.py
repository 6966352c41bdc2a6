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
        in_place: Hand memory over as it is; False: through numpy, as builds of onnxruntime that
            know no DLPack (1.20 has none) must. None: as the build can.
    """

    def __init__(self, session: "InferenceSession", *, in_place: bool | None = None) -> None:
        from onnxruntime import RunOptions
        from onnxruntime.capi import onnxruntime_pybind11_state as native

        self._session, self._vector, self._options = session, native.OrtValueVector, RunOptions()
        here = native.OrtDevice(native.OrtDevice.cpu(), native.OrtDevice.default_memory(), 0)
        can = hasattr(self._vector, "push_back_batch") and hasattr(self._vector, "to_dlpacks")
        self._in_place = can if in_place is None else in_place
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
        if [x.dtype for x in given] != self._dtypes or not all(x.is_cpu for x in given):
            raise ValueError(self._wrong(given))
        # What is not contiguous is copied, and lives until the graph has run.
        given = [x.contiguous() for x in given]
        if not self._in_place:
            feeds = {n: x.detach().numpy() for n, x in zip(self.inputs, given, strict=True)}
            return [torch.from_numpy(x) for x in self._session.run(self.outputs, feeds)]
        inputs, outputs = self._vector(), self._vector()
        inputs.push_back_batch(
            given,
            [x.data_ptr() for x in given],
            self._types,
            [x.shape for x in given],
            self._places,
        )
        self._session.run_with_ortvaluevector(
            self._options, self.inputs, inputs, self.outputs, outputs, self._places_found
        )
        found: list[Tensor] = outputs.to_dlpacks(from_dlpack)
        return found

    def _wrong(self, given: Sequence[Tensor]) -> str:
        name, tensor, wanted = next(
            (name, tensor, wanted)
            for name, tensor, wanted in zip(self.inputs, given, self._dtypes, strict=True)
            if tensor.dtype != wanted or not tensor.is_cpu
        )
        return f"{name} is {tensor.dtype} on {tensor.device}: give {wanted} on cpu"
