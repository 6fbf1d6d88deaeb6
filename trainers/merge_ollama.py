"""A Modelfile with which `ollama create` takes a merged model's directory.

Ollama's templates are Go's: they are written here for the two formats whose every token is known. Whether a model's
template is one of the two is decided by what it renders, not by its text.
"""

from __future__ import annotations

from harness.chat_template import ChatFormat
from harness.errors import UsageError
from harness.records import Message

MAX_CONTEXT = 16_384
"""Tokens that Ollama is told to hold, where the model has so many positions; memory grows with them."""
_TURNS = (
    Message(role="system", content=" a\n"),
    Message(role="user", content="b {{ c }}"),
    Message(role="assistant", content='{"d": 1} '),
    Message(role="user", content="e"),
)
_NO_TEMPLATE = """\
# No TEMPLATE: the model's chat template is neither ChatML nor repo-agent's own. Ollama looks at the chat template in
# the GGUF file that it makes, and takes the one that it knows: check what `ollama show --template` says.
"""


def modelfile(chat: ChatFormat, positions: int | None) -> str:
    """The text of the Modelfile.

    Args:
        positions: of the model; None where it has no limit.

    Raises:
        UsageError: the end of a turn cannot be written there.
    """
    stop = str(chat.tokenizer.convert_ids_to_tokens(chat.stop_id))
    if '"' in stop or "{{" in stop or not stop.isprintable():
        raise UsageError(f"--ollama: a Modelfile cannot hold the end of turn {stop!r}")
    template = go_template(chat)
    head = f'TEMPLATE """{template}"""\n' if template else _NO_TEMPLATE
    context = min(positions or MAX_CONTEXT, MAX_CONTEXT)
    return f'FROM .\n{head}PARAMETER stop "{stop}"\nPARAMETER num_ctx {context}\n'


def go_template(chat: ChatFormat) -> str:
    """The template in Go's language, for the messages of a conversation that the model is to go on with.

    Empty where the model's format is neither ChatML nor the default one.
    """
    eos = str(chat.tokenizer.eos_token)
    formats = (("<|im_start|>", "\n", "<|im_end|>\n"), ("<|", "|>\n", f"{eos}\n"))
    known = next((each for each in formats if _renders(chat, *each)), None)
    if known is None:
        return ""
    head, middle, end = known
    turn = f"{head}{{{{ .Role }}}}{middle}{{{{ .Content }}}}{end}"
    return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}{head}assistant{middle}"


def _renders(chat: ChatFormat, head: str, middle: str, end: str) -> bool:
    """Whether conversations with and without a system message come out as turns of this format and nothing else."""
    return all(
        chat.prompt_ids(turns)
        == chat.tokenizer.encode(
            "".join(f"{head}{turn.role}{middle}{turn.content}{end}" for turn in turns) + f"{head}assistant{middle}",
            add_special_tokens=False,
        )
        for turns in (_TURNS, _TURNS[1:], _TURNS[1:2])
    )
