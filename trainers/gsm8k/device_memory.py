"""Whether a model fits into a device's memory, before it is loaded: a large one would fail after many minutes.

    needed = parameters x bytes of a number + 4% + at most 1 GB

which is about 30 GB for 14 billion parameters in bfloat16, 70 GB for 32 and 150 GB for 72. The parameters are counted
in the headers of the weights' files, of a name on the hub in those that are kept here or that the hub serves; where
there are none, the name's own number counts (Qwen2.5-14B).
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.model_files import find_model
from harness.optional import require_libraries

GB = 10**9
_SHARE, _MOST = 0.04, 1.0 * GB
_NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_BILLIONS = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])")


def refuse_too_large(model: str, device: str = "", dtype: str = "") -> None:
    """Raises UsageError, with needed and free memory, for a model that this machine cannot hold."""
    require_libraries("torch", "transformers")
    device = device or _default_device()
    dtype = dtype or ("bfloat16" if device == "cuda" else "float32")
    parameters, free = parameters_of(model), free_bytes(device)
    if parameters is None or free is None or (needed := needed_bytes(parameters, dtype)) <= free:
        return
    raise UsageError(
        f"{model} does not fit: {parameters / GB:.1f} billion parameters in {dtype} need about {needed / GB:.0f} GB, "
        f"and {free / GB:.0f} GB of {device} are free: take a smaller model, or another --dtype or --device"
    )


def needed_bytes(parameters: float, dtype: str) -> float:
    weights = parameters * _NUMBER_BYTES[dtype]
    return weights * (1 + _SHARE) + min(_MOST, weights * (1 + _SHARE))


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def free_bytes(device: str) -> int | None:
    """None where it is not known."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def parameters_of(model: str) -> float | None:
    """None where neither files nor the name say it. Raises UsageError for a directory without a model."""
    base = find_model(model).base
    if Path(base).is_dir():
        return counted(sorted(Path(base).glob("*.safetensors"))) or _named(base)
    return _kept(base) or _served(base) or _named(base)


def counted(files: list[Path]) -> float | None:
    """Parameters by the headers of safetensors files (github.com/huggingface/safetensors, "Format")."""
    try:
        return sum(map(_in_file, files)) or None
    except (OSError, ValueError, struct.error, KeyError, TypeError):
        return None  # whoever loads it says what is wrong with it


def _in_file(path: Path) -> int:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(min(size, 2**28)))
    return sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")


def _kept(name: str) -> float | None:
    """Of a model that the hub's cache on this machine holds."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return counted(sorted(Path(found).parent.glob("*.safetensors"))) if isinstance(found, str) else None


def _served(name: str) -> float | None:
    from huggingface_hub import get_safetensors_metadata

    try:
        return float(sum(get_safetensors_metadata(name).parameter_count.values()))
    except Exception:  # noqa: BLE001 - no network, an unknown name, no such file: loading says which
        return None


def _named(name: str) -> float | None:
    found = _BILLIONS.findall(name.rpartition("/")[2])
    return float(found[-1]) * GB if found else None
