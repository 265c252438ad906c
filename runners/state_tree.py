"""State as tensors and JSON: what a checkpoint can hold without pickle, and a digest of its bits.

A state is nested dicts and lists whose leaves are numpy arrays, torch tensors and JSON values, whole
numbers of any length among them (a PCG64 generator's have 128 bits). `split` puts a marker where an
array was; `join` puts the array back, of the kind and dtype it had, torch tensors on the CPU.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runners.files import read_lines

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]
Arrays = dict[str, Array]

TIMES = (
    "seconds", "solved_seconds", "env_steps_per_s", "lane_steps_per_s", "updates_per_s", "spent",
    "time_shares",
)  # fmt: skip
"""What two runs of the same bits may differ in."""

_ARRAY, _TENSOR, _FLOAT = "$array", "$tensor", "$float"
_FITS = frozenset("?bBhHiIlLqQefd")  # what safetensors and numpy both know


def split(state: Mapping[str, Any]) -> tuple[Arrays, Any]:
    """The arrays of a state by their path, and the rest as JSON with markers in their places.

    Raises:
        TypeError: a leaf that would not come back as it was; the message says where.
    """
    arrays: Arrays = {}
    return arrays, _split(state, "", arrays)


def _split(value: Any, path: str, arrays: Arrays) -> Any:
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or name.startswith("$"):
                raise TypeError(f"{path or 'state'}: key {name!r} is no text, or begins with $")
        # as JSON pointers do it, so that no two leaves have one path
        return {
            name: _split(inner, f"{path}/{name.replace('~', '~0').replace('/', '~1')}", arrays)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_split(inner, f"{path}/{i}", arrays) for i, inner in enumerate(value)]
    if isinstance(value, np.ndarray):
        return {_ARRAY: _keep(value, path, arrays)}
    if isinstance(value, np.generic):
        value = value.item()
    # who has a tensor has imported torch
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        array, dtype = _from_torch(value.detach().cpu())
        return {_TENSOR: _keep(array, path, arrays), "dtype": dtype}
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be saved")


def _keep(array: Array, path: str, arrays: Arrays) -> str:
    if array.dtype.char not in _FITS:
        raise TypeError(f"{path}: an array of {array.dtype} cannot be saved")
    # in memory order and byte order as safetensors writes them; 0-d arrays stay 0-d
    arrays[path] = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return path


def _from_torch(tensor: torch.Tensor) -> tuple[Array, str]:
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")
    # numpy has no bfloat16; its bits travel as whole numbers
    array: Array = (tensor.view(torch.int16) if dtype == "bfloat16" else tensor).numpy()
    return array, dtype


def join(arrays: Mapping[str, Array], rest: Any) -> Any:
    """The state that `split` took apart."""
    if isinstance(rest, list):
        return [join(arrays, inner) for inner in rest]
    if not isinstance(rest, dict):
        return rest
    if _ARRAY in rest:
        return arrays[rest[_ARRAY]]
    if _FLOAT in rest:
        return float(rest[_FLOAT])
    if _TENSOR in rest:
        return _to_torch(arrays[rest[_TENSOR]], rest["dtype"])
    return {name: join(arrays, inner) for name, inner in rest.items()}


def _to_torch(array: Array, dtype: str) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(np.array(array))  # safetensors' arrays are read-only
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def to_bytes(rest: Any) -> bytes:
    """Canonical JSON text."""
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_state(state: Mapping[str, Any], ignore: Collection[str] = TIMES) -> str:
    """A hash over all tensors and values of a state, but for entries of the ignored names."""
    arrays, rest = split(_without(state, ignore))
    digest = hashlib.sha256(to_bytes(rest))
    digest_arrays(digest, arrays)
    return digest.hexdigest()


def digest_arrays(digest: hashlib._Hash, arrays: Mapping[str, Array]) -> None:
    """Add arrays to a hash: names, types, shapes and bits."""
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())


def digest_jsonl(path: Path, ignore: Collection[str] = TIMES) -> str:
    """A hash over the lines of a JSON lines file, but for entries of the ignored names."""
    digest = hashlib.sha256()
    for record in read_lines(path).records:
        digest.update(to_bytes(_without(record, ignore)) + b"\n")
    return digest.hexdigest()


def _without(value: Any, ignore: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {n: _without(inner, ignore) for n, inner in value.items() if n not in ignore}
    return [_without(inner, ignore) for inner in value] if isinstance(value, list) else value
