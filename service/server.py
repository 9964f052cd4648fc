"""The service as a process or a part of one: put together, published, and ended.

Knows sockets, signals and files of the home; nothing of jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from ..errors import InvalidInput, PermissionDenied, SimyardError
from ..scheduler_adapters.local import LocalAdapter
from . import gpus
from .application import ACTIVITY, build_application
from .home import Home, ManagerLock, boot_id
from .host import HostMonitor
from .manager import Manager
from .service_log import log_to_stderr
from .settings import Settings
from .store.store import Store

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 3.0
_listening: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _hang_up_in_child() -> None:
    """A fork's copies would keep the port after we are gone, and answer nobody."""
    for bound in list(_listening):
        os.close(bound.detach())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hang_up_in_child)

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class HostedService:
    """A running service inside the current event loop."""

    def __init__(
        self,
        home: Home,
        lock: ManagerLock,
        store: Store,
        manager: Manager,
        host: HostMonitor,
        settings: Settings,
    ) -> None:
        self.home = home
        self.manager = manager
        self.settings = settings
        self.endpoint: dict[str, Any] = {}
        self.ended = asyncio.Event()
        self.failure: BaseException | None = None
        self._lock = lock
        self._store = store
        self._host = host
        self._runner: web.AppRunner | None = None
        self._application: web.Application | None = None
        self._stopping = False
        self._idle_task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, home: Path, flags: Mapping[str, object]) -> HostedService:
        """Take the home, read its store, go on with its jobs, and answer on a socket.

        Raises `HomeInUse` where another service holds the home, `StoreUnreadable` where the
        store is damaged or newer, `InvalidInput` for settings or an address that cannot be.
        """
        place = Home(home)
        place.prepare()
        settings = Settings.load(place.path, flags)
        _check_bind(settings)
        lock = ManagerLock(place)
        owner = lock.acquire()
        store: Store | None = None
        try:
            loop = asyncio.get_running_loop()
            store = await asyncio.to_thread(
                Store.open,
                settings.store or place.store,
                owner=_described(owner, place, lock) if settings.store else owner,
                durability=settings.durability,
                expect_new=not place.has_history,
            )
            settings = await _with_gpus(settings)
            host = HostMonitor(place.path)
            host.start()
            await asyncio.to_thread(host.wait, 5.0)
            adapter = LocalAdapter(
                place.path, epoch=store.epoch, sync=settings.durability == "full"
            )
            manager = Manager(place, settings, store, adapter, host)
            service = cls(place, lock, store, manager, host, settings)

            def lost(error: SimyardError) -> None:
                loop.call_soon_threadsafe(service._store_lost, error)

            store.on_fatal = lost
            await manager.start()
            try:
                await service._listen(owner)
            except BaseException:
                await manager.stop()
                await asyncio.to_thread(host.stop)
                raise
        except BaseException:
            if store is not None:
                await asyncio.to_thread(store.close)
            lock.release()
            raise
        return service

    async def _listen(self, owner: Mapping[str, Any]) -> None:
        settings = self.settings
        token = secrets.token_urlsafe(32)
        bound = _bind(settings.host, settings.port, fall_back=settings.origin("port") == "default")
        port = bound.getsockname()[1]
        names = {settings.host, *settings.allowed_hosts}
        application = build_application(self.manager, token=token, port=port, names=names)
        self._application = application
        _listening.add(bound)
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, handle_signals=False
        )
        await self._runner.setup()
        await web.SockSite(self._runner, bound, ssl_context=_tls(settings)).start()
        scheme = settings.scheme
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        if shown in ("0.0.0.0", "[::]"):
            shown = "127.0.0.1"
        from .. import __version__

        self.endpoint = {
            "url": f"{scheme}://{shown}:{port}",
            "token": token,
            "pid": os.getpid(),
            "host": owner["host"],
            "boot_id": boot_id(),
            "started_at": owner["started_at"],
            "version": __version__,
        }
        self.home.write_endpoint(self.endpoint)
        if settings.idle_timeout is not None:
            self._idle_task = asyncio.create_task(self._watch_idleness(settings.idle_timeout))

    def has_work(self) -> bool:
        """True while there are jobs that would go on if the service did."""
        return self.manager.has_work

    async def stop(self) -> None:
        """End within seconds; running jobs go on, and the next service picks them up."""
        if self._stopping:
            await self.ended.wait()
            return
        self._stopping = True
        if self._idle_task is not None and self._idle_task is not asyncio.current_task():
            self._idle_task.cancel()
        try:
            self.home.remove_endpoint(os.getpid())
            if self._runner is not None:
                await self._runner.cleanup()
            with contextlib.suppress(SimyardError):
                await asyncio.wait_for(self.manager.stop(), SHUTDOWN_SECONDS)
            await asyncio.to_thread(self._host.stop)
            await asyncio.to_thread(self._store.close)
        finally:
            self._lock.release()
            self.ended.set()

    def _store_lost(self, error: BaseException) -> None:
        """The store refused us for good (another writer, damage): stop, do not guess."""
        log.critical("the service stops: %s", error)
        self.failure = error
        self._stop_task = asyncio.ensure_future(self.stop())

    async def _watch_idleness(self, timeout: float) -> None:
        """End a service that nobody has asked for anything and that has no work."""
        assert self._application is not None
        activity = self._application[ACTIVITY]
        idle_since = time.monotonic()
        while time.monotonic() - max(idle_since, activity.last) < timeout:
            await asyncio.sleep(min(5.0, timeout / 4))
            if self.manager.has_work or activity.connections:
                idle_since = time.monotonic()
        log.info("idle for %s seconds: the service ends", timeout)
        await self.stop()


def _described(owner: Mapping[str, Any], home: Home, lock: ManagerLock) -> dict[str, Any]:
    """Say of us what those must know who find us in a store that they can reach as well."""
    return {
        **owner,
        "home": str(home.path),
        "home_id": home.identity(),
        "lock": lock.identity,
    }


def serve(home: Path, flags: Mapping[str, object]) -> int:
    """Run the service in the foreground until SIGTERM, SIGINT, or its own end."""
    return asyncio.run(_serve(home, flags))


async def _serve(home: Path, flags: Mapping[str, object]) -> int:
    place = Home(home)
    settings = Settings.load(place.path, flags)
    log_to_stderr(
        place.service_log,
        kind=settings.log_format,
        level=settings.log_level,
        most=settings.log_max_bytes,
    )
    service = await HostedService.start(home, flags)
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, asked.set)
    sys.stderr.write(f"Simyard serves {service.home.path} at {service.endpoint['url']}\n")
    sys.stderr.flush()
    waits = [asyncio.ensure_future(asked.wait()), asyncio.ensure_future(service.ended.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    await service.stop()
    for wait in waits:
        wait.cancel()
    if isinstance(service.failure, SimyardError):
        raise service.failure
    return 0 if service.failure is None else 1


async def _with_gpus(settings: Settings) -> Settings:
    """Count the GPUs of the host where the settings leave that to us."""
    if settings.gpus != "auto":
        return settings
    found = await asyncio.to_thread(gpus.discover)
    names = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in found)
    log.info("found %s GPUs here%s", len(found), f" ({names})" if names else "")
    return settings.model_copy(update={"gpus": len(found)})


def _check_bind(settings: Settings) -> None:
    if settings.host in LOOPBACK or settings.tls_cert or settings.allow_remote:
        return
    raise InvalidInput(
        f"listening on {settings.host} would let other machines in over plain HTTP; give "
        "--tls-cert and --tls-key, or say --allow-remote where the network is your own"
    )


def _bind(host: str, port: int, *, fall_back: bool) -> socket.socket:
    """Return a listening socket; where the default port is taken, one on any free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except PermissionError as error:
        bound.close()
        raise PermissionDenied(
            f"no permission to listen on port {port}; choose one above 1023 with --port"
        ) from error
    except OSError as error:
        bound.close()
        if fall_back and port:
            return _bind(host, 0, fall_back=False)
        raise InvalidInput(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port, "
            "or --port 0 for any free one"
        ) from error
    bound.listen(128)
    bound.setblocking(False)
    return bound


def _tls(settings: Settings) -> Any:
    if not settings.tls_cert:
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"the TLS certificate cannot be used: {error}") from error
    return context
