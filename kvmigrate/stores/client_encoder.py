"""Arguments as bytes, and answers as a client wants them: by the client's own rules."""

from __future__ import annotations

from typing import Any

from redis.exceptions import DataError

_IN_C = (str, int, float, bytes, bytearray, memoryview)
_NOT_IN_C = "A tuple item must be str, int, float or bytes."


class ClientEncoder:
    """The rules of one client.

    Attributes:
        decodes: The client decodes answers.

        keeps_ascii: Its encoding has ASCII as it is.
    """

    def __init__(self, own: Any, *, in_c: bool = False) -> None:
        """Follow *own*, the client's encoder; *in_c*: it is not asked, as the driver packs in C, which knows UTF-8."""
        self._own, self._in_c = own, in_c
        is_utf8 = own.encoding.lower() in {"utf-8", "utf8"} and own.encoding_errors == "strict"
        self._is_utf8 = is_utf8 or in_c
        self.keeps_ascii = self._is_utf8 or bytes(own.encode("a")) == b"a"
        self.decodes = bool(own.decode_responses)

    def encode(self, value: Any) -> bytes:
        """Return an argument as bytes. Raises what the client raises where it is of no type that it takes."""
        kind = type(value)
        if kind is bytes:
            return value  # type: ignore[no-any-return]  # checked faster than by isinstance
        if kind is str and self._is_utf8:
            return value.encode()  # type: ignore[no-any-return]  # as above
        if self._in_c and (kind is bool or not isinstance(value, _IN_C)):
            raise DataError(_NOT_IN_C)
        encoded = self._own.encode(value)
        return encoded if isinstance(encoded, bytes) else bytes(encoded)

    def decoded(self, answer: Any) -> Any:
        """Return an answer with its bytes decoded, however deep they are."""
        if isinstance(answer, bytes):
            return self._own.decode(answer)
        if isinstance(answer, list):
            return [self.decoded(each) for each in answer]
        if isinstance(answer, dict):
            return {self.decoded(name): self.decoded(value) for name, value in answer.items()}
        if isinstance(answer, set | frozenset):
            return {self.decoded(each) for each in answer}
        return answer
