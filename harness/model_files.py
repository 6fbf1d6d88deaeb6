"""Where the files of a local model are: a directory, a name on the Hugging Face hub, an adapter, or a training run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError

RESULT_FILE = "result.json"
"""What a training run leaves for others: which model it made, of what."""
_LOADED = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
"""Names of files that a model or its tokenizer is loaded from end with these."""


@dataclass(frozen=True)
class ModelFiles:
    """What is loaded."""

    name: str
    """As the user wrote it."""
    base: str
    """A directory with weights, or a name on the hub."""
    adapter: Path | None = None
    """A PEFT adapter for the base model."""
    tokenizer: str = ""
    """A directory with the tokenizer, or a name on the hub."""


def find_model(name: str) -> ModelFiles:
    """The files behind a `--model`: a training run's directory, an adapter's, a model's, or a name on the hub.

    Raises:
        UsageError: a path that does not exist, a directory that holds no model, or a run that has not ended.
    """
    path = Path(name)
    if path.is_dir():
        return _in_directory(name, path)
    if path.exists() or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise UsageError(f"--model {name}: there is no such directory")
    return ModelFiles(name, name, None, name)


def files_sha256(files: ModelFiles) -> str | None:
    """Of what a model is loaded from: its name may stand for another one later. None for a name on the hub.

    Raises UsageError where a file cannot be read.
    """
    if not Path(files.base).is_dir():
        return None
    found = hashlib.sha256()
    directories = [Path(each) for each in (files.base, files.adapter, files.tokenizer) if each]
    try:
        for directory in dict.fromkeys(directories):
            for path in sorted(path for path in directory.iterdir() if path.suffix in _LOADED and path.is_file()):
                with path.open("rb") as file:
                    found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    except OSError as error:
        raise UsageError(f"--model {files.name}: {error.filename} cannot be read: {error.strerror}") from error
    return found.hexdigest()


def name_at_service(model: str, provider: str) -> str:
    """The name of a service's model: as it is, or that of the model that the training run in a directory made there.

    Raises:
        UsageError: the run was local, or at another service.
    """
    if not (Path(model) / RESULT_FILE).is_file():
        return model
    result = read_result(Path(model))
    backend = result.get("backend", "local")
    if backend != provider:
        right = "hf or vllm" if backend == "local" else backend
        raise UsageError(f"--model {model}: this run's model is for --llm-provider {right}, not {provider}")
    return str(result["model"])


def _in_directory(name: str, path: Path) -> ModelFiles:
    if (path / RESULT_FILE).is_file():
        return _of_run(name, path, read_result(path))
    if (path / "adapter_config.json").is_file():
        return _with_adapter(name, path)
    if (path / "config.json").is_file():
        return ModelFiles(name, str(path), None, str(path))
    unfinished = (path / "train.json").is_file()
    why = "the training run in it has not ended: say --resume there" if unfinished else "there is no model in it"
    raise UsageError(f"--model {name}: {why}")


def read_result(directory: Path) -> dict[str, Any]:
    """What a training run says of its result. Raises UsageError where that cannot be read."""
    try:
        found = json.loads((directory / RESULT_FILE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("adapter") or found.get("model"), str):
            return found
    except (OSError, ValueError):
        pass
    raise UsageError(f"{directory / RESULT_FILE} cannot be read")


def _of_run(name: str, path: Path, result: dict[str, Any]) -> ModelFiles:
    if result.get("backend", "local") != "local":
        raise UsageError(
            f"--model {name}: this run's model is at the service: --llm-provider {result['backend']} "
            f"--model {result.get('model')}"
        )
    if result.get("adapter"):
        return _with_adapter(name, path / str(result["adapter"]))
    return ModelFiles(name, str(path / str(result["model"])), None, str(path / str(result["model"])))


def _with_adapter(name: str, adapter: Path) -> ModelFiles:
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        base = str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--model {name}: {adapter} holds no adapter that can be read") from error
    if (Path(base).is_absolute() or base.startswith(".")) and not Path(base).is_dir():
        raise UsageError(f"--model {name}: the adapter's base model {base} is not there any more")
    own = (adapter / "tokenizer_config.json").is_file()
    return ModelFiles(name, base, adapter, str(adapter) if own else base)


def share(directory: Path) -> None:
    """Let others read a model that was written: safetensors leaves its files to their owner alone."""
    for path in directory.iterdir():
        if path.is_file():
            path.chmod(path.stat().st_mode | 0o044)
