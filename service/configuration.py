"""The settings in force as they are shown: value and origin, with what is secret hidden.

Pure: settings in, plain data out. It must not know HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from .environment import masked
from .settings import Settings


class SettingView(TypedDict):
    """One setting: its value as plain data, and in words where it came from."""

    name: str
    value: Any
    origin: str


def settings_view(settings: Settings) -> list[SettingView]:
    """Show every setting in the order of the reference."""
    origins = settings.origins()
    return [
        {"name": name, "value": _shown(name, value), "origin": origins[name]}
        for name, value in settings.model_dump(mode="json").items()
    ]


def _shown(name: str, value: Any) -> Any:
    """Hide what looks secret by its name, and passwords in addresses."""
    if isinstance(value, dict):
        return {key: _shown(key, inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(name, inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    # A path to a key is no key: it is what one looks for when TLS does not work.
    field = Settings.model_fields.get(name)
    if field is not None and Path in (field.annotation, *getattr(field.annotation, "__args__", ())):
        return str(value)
    return masked({name.upper(): str(value)})[name.upper()]
