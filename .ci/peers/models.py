"""What the providers of models accept, as the types of their own Python libraries say."""

import functools
import importlib
import os
import sys
from pathlib import Path

# Where a request's type is, and an answer's.
TYPES = {
    "openai_chat": ("openai.types.chat", "completion_create_params.CompletionCreateParamsNonStreaming", "ChatCompletion"),
    "openai_responses": ("openai.types.responses", "response_create_params.ResponseCreateParamsNonStreaming", "Response"),
    "anthropic": ("anthropic.types", "message_create_params.MessageCreateParamsNonStreaming", "Message"),
}


def available() -> bool:
    return Path(os.environ["PROVIDERS"]).is_dir()


def accept(provider: str, asked: dict, answered: dict) -> None:
    """Fails unless the library takes the request and might have given the answer."""
    request, answer = types(provider)
    consume(request.validate_python(asked))
    answer.model_validate(answered, strict=True)


@functools.cache
def types(provider: str):
    sys.path.insert(0, os.environ["PROVIDERS"])
    pydantic = importlib.import_module("pydantic")
    typing_extensions = importlib.import_module("typing_extensions")
    module, request, answer = TYPES[provider]
    package = importlib.import_module(module)
    # Their servers refuse what they don't know.
    for name, loaded in list(sys.modules.items()):
        if name.startswith(module):
            for kind in filter(typing_extensions.is_typeddict, vars(loaded).values()):
                kind.__pydantic_config__ = pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    within, name = request.split(".")
    kind = getattr(importlib.import_module(f"{module}.{within}"), name)
    return pydantic.TypeAdapter(kind), getattr(package, answer)


def gemini():
    """Its types, which refuse what they don't know."""
    sys.path.insert(0, os.environ["PROVIDERS"])
    return importlib.import_module("google.genai.types")


def consume(value) -> None:
    """An `Iterable` is validated only while it is read."""
    if isinstance(value, dict):
        value = value.values()
    if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__"):
        for each in value:
            consume(each)
