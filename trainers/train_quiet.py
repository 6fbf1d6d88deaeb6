"""The training libraries without their progress bars, advice and telemetry: our own lines say what a user needs."""

from __future__ import annotations

import logging
import os
import warnings


def quiet_libraries() -> None:
    """To be called before anything imports them: some of it is read then."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM versions")  # where vLLM is installed
    for name in ("trl", "peft", "accelerate", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
