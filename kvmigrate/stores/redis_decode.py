"""Answers of a server as bytes, and as a client wants them."""

from __future__ import annotations

from typing import Any


def decoded(answer: Any, encoder: Any) -> Any:
    """Return an answer with its bytes decoded as the client's *encoder* does, however deep they are."""
    if isinstance(answer, bytes):
        return encoder.decode(answer)
    if isinstance(answer, list):
        return [decoded(each, encoder) for each in answer]
    if isinstance(answer, dict):
        return {decoded(name, encoder): decoded(value, encoder) for name, value in answer.items()}
    if isinstance(answer, set | frozenset):
        return {decoded(each, encoder) for each in answer}
    return answer
