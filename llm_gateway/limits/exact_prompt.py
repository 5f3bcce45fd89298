"""How many tokens the text of a prompt is, counted with the model's own vocabulary, for a call whose bytes do not fit.

The vocabularies are the files that litellm carries; nothing is downloaded and litellm is not imported. One of them
takes a quarter of a second and 84 MB to read, so it is read when it is first needed, and never for a call that fits by
its bytes. Counting goes at 4 to 30 MB a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import tiktoken
from tiktoken.model import encoding_name_for_model

# The names that tiktoken gives its files: the SHA-1 of where they once came from.
_FILES: Final = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
# What JSON, or whatever a template makes of it, puts around each text: quotes, colon, comma, brace. More than enough,
# so that a seam where two texts meet, which a tokenizer may cut otherwise than we do, is paid as well.
_TOKENS_AROUND_A_TEXT: Final = 4
# tiktoken's regular expressions overflow the stack on a million spaces, so longer texts are counted in pieces.
_PIECE_CHARACTERS: Final = 16_384
# What is bounded otherwise, by the type of its part: each picture and each sound by its own rule (estimate_chat.py,
# estimate_messages.py, wire/openai_responses_input.py). Only where those look for parts: a tool's schema, say, may
# call anything an image, and the model reads all of it.
NO_TEXT: Final = {
    "image": "source",
    "image_url": "image_url",
    "input_audio": "input_audio",
    "input_image": "image_url",
}
_PARTS: Final = frozenset({"content", "output"})
_ON_THE_WAY_TO_PARTS: Final = _PARTS | {"input", "messages"}
# The only part that has parts of its own. What a model gave to a tool (tool_use) is all read, whatever it looks like.
_WITH_PARTS: Final = "tool_result"

_read: dict[str, tiktoken.Encoding] = {}


class VocabularyMissing(LookupError):
    """There is no file with this vocabulary, so the texts of this model cannot be counted here."""


def exact_prompt_tokens(body: object, tokenizer: str) -> int:
    """At most so many tokens are all the texts and names in a request's body, in whatever format, without pictures.

    Blocks for as long as counting takes. Raises: VocabularyMissing.
    """
    texts = list(_texts(body))
    pieces = sum(-(-len(text) // _PIECE_CHARACTERS) for text in texts)
    return text_tokens(texts, tokenizer) + len(texts) * _TOKENS_AROUND_A_TEXT + pieces


def text_tokens(texts: Iterable[str], tokenizer: str) -> int:
    """So many tokens are these texts, each by itself. Blocks for as long. Raises: VocabularyMissing."""
    encode = _vocabulary(tokenizer).encode_ordinary
    return sum(
        len(encode(text[start : start + _PIECE_CHARACTERS]))
        for text in texts
        for start in range(0, len(text), _PIECE_CHARACTERS)
    )


def tokenizer_of(model: str) -> str | None:
    """The vocabulary of one of OpenAI's models, where it is known and its file is there."""
    try:
        name = encoding_name_for_model(model)
        check_vocabulary(name)
    except (KeyError, VocabularyMissing):
        return None
    return name


def check_vocabulary(tokenizer: str) -> None:
    """The file is where it should be. Raises: VocabularyMissing."""
    _folder_with(tokenizer)


def _texts(value: object, *, on_the_way: bool = True, part: bool = False) -> Iterator[str]:
    """Every text, name and number within the value, but what its parts bring that is no text."""
    if isinstance(value, dict):
        kind = str(value.get("type"))
        no_text = NO_TEXT.get(kind) if part else None
        on_the_way = on_the_way and (not part or kind == _WITH_PARTS)
        for name, inner in value.items():
            yield name
            if name != no_text:
                leads_on = on_the_way and name in _ON_THE_WAY_TO_PARTS
                yield from _texts(inner, on_the_way=leads_on, part=leads_on and name in _PARTS)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, on_the_way=on_the_way, part=part)
    else:
        yield value if isinstance(value, str) else str(value)


def is_read(tokenizer: str) -> bool:
    """True once the vocabulary is in memory."""
    return tokenizer in _read


def _vocabulary(tokenizer: str) -> tiktoken.Encoding:
    if tokenizer not in _read:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(_folder_with(tokenizer))  # as litellm sets it when it is imported
        _read[tokenizer] = tiktoken.get_encoding(tokenizer)
    return _read[tokenizer]


def _folder_with(tokenizer: str) -> Path:
    """Without the file, tiktoken would ask the network for it."""
    found = find_spec("litellm")
    places = found.submodule_search_locations if found else None
    folder = Path(places[0]) / "litellm_core_utils" / "tokenizers" if places else None
    if folder is None or tokenizer not in _FILES or not (folder / _FILES[tokenizer]).is_file():
        raise VocabularyMissing(f"the vocabulary {tokenizer} is not installed")
    return folder
