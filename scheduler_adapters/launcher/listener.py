"""The socket at which the launcher of a home is found, and who may speak there."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from . import processes
from .journal import encode
from .log import log


class Listener:
    """Listens at ``launcher.sock`` in the folder `run`, however long its path is."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._remove()
        self._bind()
        self._socket.listen(16)

    def fileno(self) -> int:
        """Return the descriptor that is readable when somebody calls."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """Return the next connection, None where it is gone again or may not be."""
        try:
            link, _ = self._socket.accept()
        except OSError:
            return None
        if not _same_user(link):
            log("refused a connection from another user")
            link.close()
            return None
        link.setblocking(False)
        return link

    def close(self) -> None:
        """Be found no more."""
        self._remove()
        self._socket.close()

    def _remove(self) -> None:
        for name in ("launcher.sock", "launcher.json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._run, name))

    def _bind(self) -> None:
        path = os.path.join(self._run, "launcher.sock")
        if processes.LINUX:
            folder = os.open(self._run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._socket.bind(f"/proc/self/fd/{folder}/launcher.sock")
            finally:
                os.close(folder)
        elif len(os.fsencode(path)) < 100:
            self._socket.bind(path)
        else:
            short = f"/tmp/simyard-{os.getuid()}-{os.urandom(8).hex()}"
            os.mkdir(short, 0o700)
            path = os.path.join(short, "launcher.sock")
            self._socket.bind(path)
            where = os.path.join(self._run, "launcher.json")
            descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, encode({"socket": path}).encode())
            os.close(descriptor)
        os.chmod(path, 0o600)


def _same_user(link: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder of the socket is private
    size = struct.calcsize("3i")
    _pid, user, _group = struct.unpack(
        "3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return bool(user == os.getuid())
