"""docker-compose.yml and what it mounts: by the published schemas, and by our own rules for every service."""

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml
from prometheus_client import CollectorRegistry

from edge.counts import EdgeCounts
from hub.metrics import HubMetrics
from viewsync.bundle import Bundle
from viewsync.lab.watch import WatchMetrics

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
SITE: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = SITE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
VIEWS = Bundle.load(ROOT / "bundles" / "plaza").manifest.views
SITE_PROFILES = ("demo", "sim", "gpu")
each = pytest.mark.parametrize("name", SERVICES)


def load(path: Path) -> ModuleType:
    """A script without suffix, or a module of tests/support, by its path."""
    name = f"tests_{path.stem.replace('-', '_')}"
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def tool(name: str, *words: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_follows_the_specification() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_hadolint_has_nothing_to_say_of_the_images() -> None:
    tool("hadolint", str(ROOT / "deploy" / "Dockerfile"))


@each
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service and "pid" not in service and "network_mode" not in service
    assert not re.match(r"^(0|root)?(:|$)", service["user"]), "it must not run as root"
    link = name.startswith("uplink-")
    assert service.get("cap_add", []) == (["NET_ADMIN"] if link else [])
    assert ("no-new-privileges:true" in service["security_opt"]) == (not link)
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", ()))
    assert all(
        str(volume).endswith(":ro") or str(volume).partition(":")[0] in SITE["volumes"]
        for volume in service.get("volumes", ())
    )


@each
def test_a_service_has_limits_a_health_check_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["cpus"] > 0 and service["mem_limit"] and service["pids_limit"] > 0
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert "depends_on" not in service, "programs try again; nothing depends on start order"
    assert service["logging"]["options"]["max-size"]


@each
def test_versions_are_pinned_and_ports_stay_on_this_machine(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z0-9.]+/[a-z0-9./-]+:v?\d+\.\d+\.\d+", service["image"])
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_the_base_image_is_one_and_pinned() -> None:
    stages = re.findall(r"^FROM (\S+)", (ROOT / "deploy/Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert {stage for stage in stages if ":" in stage} == {stages[0]}
    assert re.search(r":[a-z]+-20\d{6}-slim$", stages[0])


def secrets(name: str) -> set[str]:
    return set(SERVICES[name].get("secrets", ()))


def test_the_truth_goes_to_cameras_and_subscriber_only() -> None:
    told = {name for name in SERVICES if "world.yaml" in secrets(name)}
    assert told == {*(f"camera-{view}" for view in VIEWS), "subscriber"}
    for name, service in SERVICES.items():
        if name not in told:
            assert "world" not in json.dumps(service.get("command", ""))


def test_everyone_has_their_own_keys_and_nobody_elses() -> None:
    for view in VIEWS:
        assert secrets(f"agent-{view}") == {f"agent-{view}.key", "hub.pub"}
    for name in SERVICES:
        assert ("hub.key" in secrets(name)) == name.startswith("hub")
    assert secrets("subscriber") == {"world.yaml", "subscriber-log.key", "hub.pub"}


@pytest.mark.parametrize("profile", SITE_PROFILES)
def test_a_profile_is_a_whole_site(profile: str) -> None:
    there = {name: service for name, service in SERVICES.items() if profile in service["profiles"]}
    wanted = {"subscriber", *(f"{part}-{view}" for part in ("camera", "agent") for view in VIEWS)}
    assert wanted <= there.keys()
    (hub,) = [name for name in there if name.startswith("hub")]
    # What agents and subscriber call by name is on a network of theirs.
    names = {
        (network, alias)
        for name, service in there.items()
        for network, how in networks(service).items()
        for alias in (name, *how.get("aliases", ()))
    }
    for view in VIEWS:
        command = " ".join(there[f"agent-{view}"]["command"])
        (uplink,) = re.findall(r"--hub=tcp://([\w-]+):5555", command)
        (camera,) = re.findall(r"rtsp://([\w-]+):8554", command)
        assert ("field", uplink) in names and ("cameras", camera) in names
        # Over the bad links or not at all.
        assert ("field" in networks(there[hub])) == (profile != "sim")
    assert ("site", "the-hub") in names and "site" in networks(there["subscriber"])


def networks(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    given = service["networks"]
    return {name: {} for name in given} if isinstance(given, list) else given


def test_only_one_network_leads_outside() -> None:
    assert [name for name, how in SITE["networks"].items() if not how.get("internal")] == ["outside"]
    for name, service in SERVICES.items():
        assert ("outside" in networks(service)) == bool(service.get("ports")), name


@pytest.mark.parametrize("name", OURS)
def test_what_a_container_runs_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(word)) for word in OURS[name]["command"]]
    found, path, rest = load(ROOT / "tests/support/printed.py").resolve(("viewsync", *words))
    for parameter in found.params:
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter.type, "exists", False)
    context = found.make_context(" ".join(path), rest)
    if "profile" in context.params:
        from viewsync.lab.profile import load_profile

        load_profile(context.params["profile"]).of_views(VIEWS)


def registries() -> dict[str, set[str]]:
    """Names of samples by job, with their labels' names, of programs that have just started."""
    hub = HubMetrics(VIEWS, CollectorRegistry())
    edge = EdgeCounts(CollectorRegistry())
    watch = WatchMetrics(CollectorRegistry(), 0)
    found = {}
    for job, registry in (("hub", hub.registry), ("agents", edge.registry), ("subscriber", watch.registry)):
        names = set()
        for family in registry.collect():
            kinds = {
                "counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]
            }[family.type]  # fmt: skip
            names |= {family.name + kind for kind in kinds}
        found[job] = names
    return found


def test_prometheus_asks_every_program_that_tells() -> None:
    settings = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text("utf-8"))
    jobs = {
        job["job_name"]: [target for group in job["static_configs"] for target in group["targets"]]
        for job in settings["scrape_configs"]
    }
    assert jobs.keys() == registries().keys()
    assert jobs["agents"] == [f"agent-{view}:9100" for view in VIEWS]
    assert jobs["hub"] == ["the-hub:9100"] and jobs["subscriber"] == ["subscriber:9100"]
    reached = set(networks(SERVICES["prometheus"]))
    for name in ("agent-north", "hub", "hub-gpu", "hub-behind-links", "subscriber"):
        assert reached & set(networks(SERVICES[name])) - {"outside"}, name


def test_the_dashboard_shows_what_the_programs_tell() -> None:
    board = json.loads((ROOT / "deploy/grafana/dashboards/site.json").read_text("utf-8"))
    told = set().union(*registries().values(), {"up"})
    shown = set()
    for panel in board["panels"]:
        assert panel["targets"] and panel["description"]
        for target in panel["targets"]:
            names = set(re.findall(r"\b(?:viewsync_\w+|up)\b", target["expr"]))
            assert names and names <= told, f"{panel['title']}: {names - told}"
            assert target["expr"].count("(") == target["expr"].count(")")
            shown |= names
    for what in ("watch_truth_people", "hub_view_age_seconds", "hub_latency_seconds_bucket", "edge_hub_up"):
        assert f"viewsync_{what}" in shown
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


def test_grafana_is_given_the_dashboard_and_prometheus() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    board = (ROOT / "deploy/grafana/dashboards/site.json").read_text("utf-8")
    assert set(re.findall(r'"uid": ?"([\w-]+)"', board)) == {source["uid"], "viewsync-site"}
    (provider,) = yaml.safe_load((folder / "dashboards/site.yaml").read_text("utf-8"))["providers"]
    mounts = [volume.split(":") for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in {there for _, there, _ in mounts}
    assert all((ROOT / here).is_dir() for here, _, _ in mounts)
    assert source["url"] == "http://prometheus:9090"


@pytest.mark.parametrize("extra", ["edge", "hub", "hub-gpu", "sim", "demo"])
def test_an_image_installs_what_its_extra_says(extra: str) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/dependencies", extra],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    project = tomllib.loads(text)["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"][extra]}
    if extra == "demo":
        wanted = {*project["dependencies"]}.union(
            *(project["optional-dependencies"][part] for part in ("edge", "hub", "sim"))
        )
    assert set(done.stdout.splitlines()) == wanted


def prepare(folder: Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"VIEWSYNC": f"{sys.executable} -m viewsync", "VIEWSYNC_SECRETS": str(folder)}
    return subprocess.run(
        ["sh", ROOT / "deploy/prepare"], env=environ, capture_output=True, text=True, check=True
    )


def test_prepare_makes_every_secret_once_and_for_the_containers_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    prepare(folder)
    for name, how in SITE["secrets"].items():
        assert how["file"] == f"${{VIEWSYNC_SECRETS:-./deploy/secrets}}/{name}"
        found = (folder / name).stat()
        private = name not in ("hub.pub", "allow.yaml")
        assert not private or stat.S_IMODE(found.st_mode) == 0o600
        assert found.st_uid == (os.geteuid() or 1000)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "kept" in prepare(folder).stdout
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    views = {
        entry
        for line in before["allow.yaml"].decode().splitlines()
        for entry in re.findall(r"name: (\w+)", line)
    }
    assert views == {*VIEWS, "log"}
