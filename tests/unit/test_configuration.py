"""The settings are shown with where they came from, and without what is secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simyard.service import configuration
from simyard.service.configuration import settings_view
from simyard.service.settings import Settings


def shown(settings: Settings) -> dict[str, Any]:
    return {item["name"]: (item["value"], item["origin"]) for item in settings_view(settings)}


def test_every_setting_is_shown_with_its_origin(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('max_memory = "2 GiB"\ngpus = 1\n')
    settings = Settings.load(
        tmp_path, {"max_cores": 3}, environ={"SIMYARD_GPUS": "2", "SIMYARD_LICENSES": "hfss=2"}
    )
    found = shown(settings)
    assert list(found) == list(Settings.model_fields)
    assert found["max_cores"] == (3, "flag --max-cores")
    assert found["gpus"] == (2, "variable SIMYARD_GPUS")
    assert found["licenses"] == ({"hfss": 2}, "variable SIMYARD_LICENSES")
    assert found["max_memory"] == (2 << 30, str(tmp_path / "settings.toml"))
    assert found["port"] == (8080, "default")
    assert found["max_concurrent_jobs"] == (None, "default")


def test_paths_of_keys_are_shown_and_are_no_secret(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {"tls_cert": "/c.pem", "tls_key": "/k.pem"}, environ={})
    assert shown(settings)["tls_key"] == ("/k.pem", "flag --tls-key")


@pytest.mark.parametrize(
    ("name", "value"),
    [("api_token", "hunter2"), ("database", "postgresql://me:hunter2@db/simyard")],
)
def test_secrets_and_passwords_in_addresses_are_masked(name: str, value: str) -> None:
    assert "hunter2" not in str(configuration._shown(name, value))
    assert "hunter2" not in str(configuration._shown("nested", {name: [value]}))
