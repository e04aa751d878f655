"""Flags behind any OpenFeature provider: one object flag holds the document that a file would.

A provider decides one flag for one request and names no others; asked for each read, it would cost more than that. So
the document is asked for beside the requests, and requests are placed here, as with every other source.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from kvmigrate.errors import ConfigError, FlagsError
from kvmigrate.flags.document import read_document
from kvmigrate.intent import FlagChange, FlagState, ReadIntent

SCHEME = "openfeature"
_EXAMPLE = f"{SCHEME}://shop.flags:make_provider"


class OpenFeatureFlags:
    """Implements `kvmigrate.flags.base.FlagSource`. Whatever the provider asks is where flags are changed."""

    interval_s = 0.2

    def __init__(self, url: str, scope: str) -> None:
        """Import nothing yet.

        Args:
            url: ``openfeature://package.module:name``: a provider, or a function that makes one.

            scope: The mapping's name; the flag is ``kvm.<scope>.reads``.

        Raises:
            ConfigError: the URL is wrong.
        """
        module, colon, attribute = url.removeprefix(f"{SCHEME}://").partition(":")
        if not (colon and all(map(str.isidentifier, [*module.split("."), attribute]))):
            raise ConfigError("flags: this names no provider of OpenFeature", hint=_EXAMPLE)
        self._module, self._attribute, self._scope = module, attribute, scope
        self.name, self.flag = url, f"kvm.{scope}.reads"
        self._provider: Any = None

    def read(self) -> FlagState:
        """Return the flags of the document. Raises `FlagsError`, `ConfigError`."""
        provider = self._opened()
        try:
            # Its default says whether it was there: what a provider does not know it answers with that.
            found = provider.resolve_object_details(self.flag, [], None)
        except Exception as exc:
            hint = "reads go on by what was known last"
            raise FlagsError(f"{self.name}: {type(exc).__name__}: {exc}", hint=hint) from exc
        if found.error_code is not None or found.value == []:
            why = found.error_message or found.error_code or "it is not there"
            raise FlagsError(f"{self.name}: {self.flag}: {why}", hint=f"make an object flag {self.flag!r}")
        return read_document(found.value, f"{self.name}: {self.flag}", self._scope)

    def latest(self, slugs: Sequence[str]) -> FlagState:
        """Return the flags as they are read."""
        del slugs
        return self.read()

    def change(self, slug: str, intent: ReadIntent, *, who: str, why: str) -> NoReturn:
        """Raise `ConfigError`: OpenFeature reads flags."""
        del slug, intent, who, why
        raise ConfigError(f"{self.name}: flags are read here, not changed", hint=f"change {self.flag} where it stands")

    def history(self, *, limit: int) -> Sequence[FlagChange]:
        """Raise `ConfigError`: OpenFeature has none."""
        del limit
        raise ConfigError(f"{self.name} keeps no history", hint="look where the flag stands")

    def close(self) -> None:
        """Shut the provider down."""
        provider, self._provider = self._provider, None
        if provider is not None:
            with suppress(Exception):
                provider.shutdown()

    def _opened(self) -> Any:
        if self._provider is None:
            context = self._from("openfeature.evaluation_context", "EvaluationContext", "pip install openfeature-sdk")
            named = self._from(self._module, self._attribute, _EXAMPLE)
            made: Any = None
            try:
                made = named if hasattr(named, "resolve_object_details") and not isinstance(named, type) else named()
                made.initialize(context())
            except Exception as exc:
                if made is not None and made is not named:
                    # The next look makes another one.
                    with suppress(Exception):
                        made.shutdown()
                raise FlagsError(f"{self.name}: {type(exc).__name__}: {exc}", hint=_EXAMPLE) from exc
            self._provider = made
        return self._provider

    def _from(self, module: str, attribute: str, hint: str) -> Any:
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as exc:
            raise ConfigError(f"{self.name}: {exc}", hint=hint) from exc
