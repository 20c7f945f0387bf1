"""The links of a profile between one hub and its agents, laid on this machine by one of the ways."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self, TypeVar

from viewsync.demo.processes import Program, free_ports
from viewsync.lab.link.namespaces import Namespace, veth
from viewsync.lab.link.ways import Way
from viewsync.lab.profile import load_profile

Result = TypeVar("Result")
_LOOPBACK: Final = "127.0.0.1"
HUB_PORT: Final = 5555


class Network:
    """A context: inside it the namespaces are there, and `programs` are to be run for the links to work.

    profile: name or path; epoch_ns: its time 0, UTC. Raises ConfigError; OSError, InternalError where the
    machine does not permit the way (`ways.choose` says so beforehand).
    """

    def __init__(self, profile: str, views: Sequence[str], way: Way, epoch_ns: int) -> None:
        load_profile(profile).of_views(views)
        self.way, self.views = way, tuple(views)
        self._words = (profile, ",".join(views))
        self._epoch_ns = epoch_ns
        self._stack = ExitStack()
        self._hub: Namespace | None = None
        self._agents: dict[str, Namespace] = {}
        self._ports: dict[str, int] = {}
        self._started: dict[str, list[int]] = {view: [] for view in self.views}
        self.programs: list[Program] = []

    def __enter__(self) -> Self:
        try:
            self._lay(self._stack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def hub_bind(self) -> tuple[str, int]:
        """Where the hub is to listen, in its own network."""
        return ("0.0.0.0" if self._hub else _LOOPBACK, self._ports.get("", HUB_PORT))

    def hub_seen_from(self, view: str) -> tuple[str, int]:
        """The hub's address for this view's agent, at the near end of its link."""
        if self._hub is None:
            return _LOOPBACK, self._ports[view]
        return self._address(view, 1), HUB_PORT

    def namespace(self, view: str | None) -> int:
        """Descriptor of the namespace of this view's agent, None: of the hub; -1: there are no namespaces."""
        inside = self._hub if view is None else self._agents.get(view)
        return -1 if inside is None else inside.descriptor

    def inside(self, view: str | None, do: Callable[[], Result]) -> Result:
        """What `do()` returns in the network of this view's agent, None: of the hub."""
        inside = self._hub if view is None else self._agents.get(view)
        return do() if inside is None else inside.run(do)

    def is_up(self, view: str) -> bool:
        """Whether this view's link does its work by now."""
        if self.way == "proxy":
            return _is_taken(self._ports[view])
        started = self._started[view]
        for descriptor in list(started):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(descriptor)
                started.remove(descriptor)
        return not started

    def _address(self, view: str, end: int) -> str:
        """end: 1 the hub's, 2 the agent's."""
        return f"10.77.{self.views.index(view) + 1}.{end}"

    def _lay(self, stack: ExitStack) -> None:
        if self.way == "proxy":
            ports = free_ports(len(self.views) + 1)
            self._ports = dict(zip(("", *self.views), ports, strict=True))
            self.programs = [self._relay(view) for view in self.views]
            return
        hub = self._hub = Namespace()
        stack.callback(hub.close)
        for number, view in enumerate(self.views, start=1):
            agent = self._agents[view] = Namespace()
            stack.callback(agent.close)
            near, far = self._address(view, 2), self._address(view, 1)
            if self.way == "tun":
                ends = (agent.tun("hub", near, far), hub.tun(f"view{number}", far, near))
                for end in ends:
                    stack.callback(os.close, end)
                self.programs.append(self._tun(view, ends))
            else:
                veth(agent, "hub", near, hub, f"view{number}", far)
                self.programs += [
                    self._netem(view, "up", "hub", agent),
                    self._netem(view, "down", f"view{number}", hub),
                ]

    def _tun(self, view: str, ends: tuple[int, int]) -> Program:
        descriptors = (*ends, self._signal(view))
        words = (*self._words, view, str(self._epoch_ns), *map(str, descriptors))
        return Program(f"link-{view}", words, module="viewsync.lab.link.tun", descriptors=descriptors)

    def _netem(self, view: str, way: str, device: str, namespace: Namespace) -> Program:
        signal = self._signal(view)
        words = (*self._words, view, way, str(self._epoch_ns), device, str(signal))
        return Program(
            f"link-{view}-{way}",
            words,
            module="viewsync.lab.link.netem",
            namespace=namespace.descriptor,
            descriptors=(signal,),
        )

    def _signal(self, view: str) -> int:
        """A descriptor by which a link says that it has started."""
        made = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stack.callback(os.close, made)
        self._started[view].append(made)
        return made

    def _relay(self, view: str) -> Program:
        ports = (str(self._ports[view]), str(self._ports[""]))
        words = (*self._words, view, str(self._epoch_ns), *ports)
        return Program(f"link-{view}", words, module="viewsync.lab.link.relay")


def _is_taken(port: int) -> bool:
    """Whether somebody listens at a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return True
    return False
