"""Puts a merged model's directory on the Hugging Face hub, when it is asked to."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError


def check_push(name: str) -> None:
    """What can be known before the work: a name that the hub takes, a token, no offline mode.

    Raises:
        UsageError: it cannot be pushed.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"--push-to-hub {name}: {error}") from error
    if constants.HF_HUB_OFFLINE:
        raise UsageError("--push-to-hub: HF_HUB_OFFLINE is set")
    if not get_token():
        raise UsageError("--push-to-hub needs a token of the Hugging Face hub: set HF_TOKEN, or say `hf auth login`")


def push(directory: Path, name: str, private: bool) -> str:
    """Upload all files; the address of the model.

    Raises:
        UsageError: the hub refuses, cannot be reached, or has a model of this name that others can or cannot see, other
            than was asked for.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
        _check_visibility(api.model_info(made.repo_id).private, name, private)
        api.upload_folder(folder_path=directory, repo_id=made.repo_id, commit_message="Upload a merged model")
    except (HTTPError, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{directory} is complete, but it was not pushed: {why}. Try: hf upload {name} {directory}"
        ) from error
    return str(made)


def _check_visibility(is_private: bool | None, name: str, private: bool) -> None:
    if bool(is_private) != private:
        there, flag = ("private", "--private") if is_private else ("public", "--public")
        raise ValueError(f"{name} is on the hub already and {there}: say {flag}")
