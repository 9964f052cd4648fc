"""The launcher: starts local jobs, follows them and records how they end.

One plain process per home, run by this folder's path under a bare interpreter
(``python -I -S …/launcher HOME``): standard library only, nothing of ours but this
folder, everything imported at the start, so that it outlives the release and the
manager that started it. It starts nothing twice, and it writes down each fact
before anybody is told. It knows tags, not jobs: no priorities, no store, no HTTP.

The parts, the protocol and the records are described in ``docs/architecture-launcher.md``.
"""
