"""Settings come from where they should, are checked, and are documented, each of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from pydantic import ValidationError

from simyard.errors import InvalidInput
from simyard.service.host import usable_cores, usable_memory
from simyard.service.settings import Settings

REFERENCE = ROOT / "docs" / "reference" / "settings.md"


def load(home: Path, flags: Any = None, text: str | None = None, **environ: str) -> Settings:
    if text is not None:
        (home / "settings.toml").write_text(text, encoding="utf-8")
    return Settings.load(home, flags, environ=environ)


def test_without_anything_said_the_defaults_hold(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.host, settings.port, settings.scheme) == ("127.0.0.1", 8080, "http")
    assert settings.max_cores == usable_cores() and settings.max_memory == usable_memory()
    assert settings.min_free_disk == 1 << 30 and settings.idle_timeout is None
    assert set(settings.origins().values()) == {"default"}


def test_a_flag_beats_a_variable_that_beats_the_file_that_beats_the_default(tmp_path: Path) -> None:
    text = 'port = 1111\nmax_cores = 2\nhost = "localhost"\n'
    settings = load(
        tmp_path, {"port": 3333, "host": None}, text, SIMYARD_PORT="2222", SIMYARD_MAX_CORES="4"
    )
    assert (settings.port, settings.max_cores, settings.host) == (3333, 4, "localhost")
    assert settings.origin("port") == "flag --port"
    assert settings.origin("max_cores") == "variable SIMYARD_MAX_CORES"
    assert settings.origin("host") == str(tmp_path / "settings.toml")
    assert settings.origin("grace") == "default"


def test_quantities_lists_and_counters_are_read_as_people_write_them(tmp_path: Path) -> None:
    text = (
        'max_memory = "4 GiB"\ngrace = "1m30s"\nallowed_hosts = ["Sim.Example.org"]\n'
        "[licenses]\nhfss = 2\n"
    )
    settings = load(tmp_path, None, text)
    assert settings.max_memory == 4 << 30 and settings.grace == 90
    assert settings.allowed_hosts == ("sim.example.org",) and settings.licenses == {"hfss": 2}
    settings = load(
        tmp_path,
        SIMYARD_LICENSES="hfss=3, crystal=1",
        SIMYARD_ALLOWED_HOSTS="a.example, b.example",
        SIMYARD_MAX_CORES="unlimited",
        SIMYARD_ALLOW_REMOTE="true",
        SIMYARD_LOG_LEVEL="DEBUG",
        SIMYARD_IDLE_TIMEOUT="15 min",
    )
    assert settings.licenses == {"hfss": 3, "crystal": 1}
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.max_cores is None and settings.allow_remote
    assert settings.log_level == "debug" and settings.idle_timeout == 900


def test_an_empty_variable_says_nothing_and_foreign_ones_are_left_alone(tmp_path: Path) -> None:
    settings = load(tmp_path, None, None, SIMYARD_PORT="", SIMYARD_TOKEN="x", SIMYARD_JOB_ID="1")
    assert settings == load(tmp_path)


@pytest.mark.parametrize(
    ("flags", "text", "environ", "words"),
    [
        (None, "max_core = 4", {}, "no setting 'max_core' in {file}; did you mean 'max_cores'?"),
        (None, "colour = 1", {}, "the settings are host, port"),
        ({"prot": 1}, "", {}, "there is no setting 'prot'; did you mean 'port'?"),
        (None, "port = ", {}, "{file} is not valid TOML"),
        (None, 'port = "http"', {}, "setting port ({file}): "),
        (None, "", {"SIMYARD_PORT": "70000"}, "setting port (variable SIMYARD_PORT): "),
        ({"max_memory": "much"}, "", {}, "setting max_memory (flag --max-memory): 'much' is not"),
        ({"max_cores": 0}, "", {}, "setting max_cores"),
        ({"licenses": "hfss"}, "", {}, "write counters as NAME=COUNT"),
        ({"tls_cert": "c.pem"}, "", {}, "tls_cert and tls_key belong together"),
        ({"allowed_hosts": "*.example"}, "", {}, "is not a host name"),
        ({"allowed_hosts": "http://a/"}, "", {}, "is not a host name"),
        (
            {"store": "mysql://me:secret@host/db"},
            "",
            {},
            "write postgresql://USER@HOST:PORT/DATABA",
        ),
        ({"durability": "some"}, "", {}, "setting durability"),
        ({"idle_timeout": "-5"}, "", {}, "setting idle_timeout"),
    ],
)
def test_a_mistake_names_the_setting_where_it_was_made_and_what_to_write(
    tmp_path: Path, flags: Any, text: str, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(tmp_path, flags, text, **environ)
    assert words.format(file=tmp_path / "settings.toml") in caught.value.message
    assert "secret" not in caught.value.message
    assert "pydantic" not in caught.value.message and "Value error" not in caught.value.message


def test_a_file_that_cannot_be_read_is_no_reason_to_go_on_without(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot be read"):
        load(tmp_path)


def test_settings_do_not_change_once_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(tmp_path).port = 1


def test_every_setting_is_documented_and_nothing_else() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", REFERENCE.read_text("utf-8"), re.M)
    assert [name for name, _, _ in rows] == list(Settings.model_fields)
    for name, _, meaning in rows:
        assert meaning == Settings.model_fields[name].description, name
