"""What the programs of a site are told: keys, one configuration each, and where each of them runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from calib.scene import save_scene
from hub.config import HubConfig
from viewsync.bundle import Bundle
from viewsync.client import Subscriber
from viewsync.demo.counters import Counters, page_at
from viewsync.demo.processes import Program, free_ports
from viewsync.demo.truth import CameraPlan
from viewsync.keys import ALLOW, Allowed, KeyFolder, load_client_keys
from viewsync.lab.link.network import Network

SITE: Final = "lab"
# From exposure to arrival a simulated camera next door takes a tenth of a second, more on a busy machine.
_ALLOWANCE_MS: Final = 400


class Told:
    """Writes keys and configurations to `folder`, for a network that is laid. programs: those of the field.

    config: of the hub, as the policy has it; compare: graphs that answer beside the default one; crowd:
    options that make it, for the cameras.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: HubConfig,
        compare: Sequence[str],
        plans: Mapping[str, CameraPlan],
        crowd: tuple[str, ...],
        network: Network,
        folder: Path,
    ) -> None:
        self._bundle, self._network, self._folder = bundle, network, folder
        self._keys = folder / "keys"
        self._making = KeyFolder(self._keys)
        self._making.make_hub()
        self._making.make_client(Allowed(SITE, "subscriber"))
        predictions, *ports = free_ports(2 + 2 * len(plans))
        self._endpoint = f"tcp://127.0.0.1:{predictions}"
        self._pages: dict[str, int] = {}
        self._where: dict[str, str | None] = {}
        self.programs = [self._hub(config, compare, ports.pop())]
        for view, plan in plans.items():
            url = f"rtsp://127.0.0.1:{ports.pop()}/{view}"
            self.programs += [self._agent(view, url, ports.pop()), self._camera(plan, url, crowd)]
        self.counters = Counters(self._pages, self._page)

    def listen(self) -> Subscriber:
        """A subscription to the hub, for whoever is in its network."""
        own = self._keys / f"subscriber-{SITE}.key"
        return Subscriber(self._endpoint, load_client_keys(own, self._keys / "hub.pub"))

    def _page(self, program: str, port: int) -> str:
        return self._network.inside(self._where[program], lambda: page_at(port))

    def _hub(self, config: HubConfig, compare: Sequence[str], page: int) -> Program:
        host, port = self._network.hub_bind
        settings = config.model_dump(mode="json", exclude_unset=True, exclude_none=True) | {
            "bind": f"tcp://{host}:{port}",
            "model": {"compare": list(compare)},
            "security": {"keys": str(self._keys / "hub.key"), "allow": str(self._keys / ALLOW)},
            "outputs": {"bind": self._endpoint},
            "health": {"port": page},
        }
        return self._program("hub", ("hub",), settings, None)

    def _agent(self, view: str, url: str, page: int) -> Program:
        scene = self._bundle.scene.name
        self._making.make_client(Allowed(view, "agent", SITE, scene, (view,)))
        host, port = self._network.hub_seen_from(view)
        settings = {
            "bundle": str(self._bundle.path.resolve()),
            "view": view,
            "site": SITE,
            "source": {
                "url": url,
                "listen": True,
                "reconnect_max_s": 1.0,
                "arrival_allowance_ms": _ALLOWANCE_MS,
            },
            "hub": {"endpoint": f"tcp://{host}:{port}"},
            "security": {
                "keys": str(self._keys / f"agent-{view}.key"),
                "hub_key": str(self._keys / "hub.pub"),
            },
            "health": {"port": page},
        }
        return self._program(f"agent-{view}", ("edge",), settings, view)

    def _program(
        self, name: str, command: tuple[str, ...], settings: Mapping[str, Any], view: str | None
    ) -> Program:
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        self._pages[name], self._where[name] = settings["health"]["port"], view
        return Program(name, (*command, "--config", str(path)), namespace=self._network.namespace(view))

    def _camera(self, plan: CameraPlan, url: str, crowd: tuple[str, ...]) -> Program:
        words = (
            *("sim", "camera", "--scene", self._scene(), *plan.arguments(), *crowd, "--url", url),
            *("--crowd-state", str(self._folder / f"crowd-{plan.view}.json")),
        )
        return Program(f"camera-{plan.view}", words, namespace=self._network.namespace(plan.view))

    def _scene(self) -> str:
        if self._bundle.scene.name == "plaza":
            return "plaza"
        path = self._folder / "scene.yaml"
        if not path.exists():
            save_scene(self._bundle.scene, path)
        return str(path)
