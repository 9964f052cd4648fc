"""Bring a store of an earlier release to the present shape of its tables.

Alembic costs as much to import as everything else of a start together: it is
imported only where the revision found is not the present one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import StoreUnreadable
from .. import schema
from ..backend import Backend

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)

HERE = Path(__file__).parent


def bring_up(backend: Backend, *, head: str = schema.HEAD, folders: Sequence[Path] = ()) -> None:
    """Migrate the store to `head`, after a backup, whole or not at all.

    `folders` hold further revisions. Raises `StoreUnreadable` where the store is at a
    revision that this release does not know: a later one wrote it.
    """
    found = backend.revision()
    if found == head:
        return
    from alembic import command
    from alembic.script import ScriptDirectory

    config = configuration(folders)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found not in known:
        raise StoreUnreadable(
            f"the store {backend.shown} was written by a later release of Simyard (revision {found}; this "
            f"one knows up to {head}); nothing was changed. Install that release or a later one, "
            "or restore a backup of the store from before",
            store=backend.shown,
        )
    with backend.safety_copy(head) as copy:
        log.info("migrating the store from revision %s to %s, backup: %s", found, head, copy)
        engine = backend.writer_engine()
        try:
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, head)
        finally:
            engine.dispose()


def configuration(folders: Sequence[Path] = ()) -> Config:
    """Return Alembic's settings; there is no ``alembic.ini``."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _escaped(HERE))
    # The first name is that of Alembic 1.16 and later, the second of those before.
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_path_separator", "os")
    if folders:
        versions = [HERE / "versions", *folders]
        locations = os.pathsep.join(_escaped(each) for each in versions)
        config.set_main_option("version_locations", locations)
    return config


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")
