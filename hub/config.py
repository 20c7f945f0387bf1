"""Everything a hub can be told: one YAML file, `VIEWSYNC_SECTION__KEY`, or `--set section.key=value`.

docs/hub.md explains each key; a test holds the two together. Constructors elsewhere take plain values,
never these models.
"""

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from hub.buffer import BufferRules
from hub.inputs import takes_before
from hub.reference import Policy
from viewsync.bundle import Bundle
from viewsync.config import Section
from viewsync.endpoints import is_loopback
from viewsync.errors import ConfigError
from viewsync.sections import Endpoint, HealthSection, Name
from viewsync.units import MS_NS, SECOND_NS

_log = logging.getLogger(__name__)


class ModelSection(Section):
    """Which graphs of the bundle answer, and on what."""

    # Fusion graph whose count is published as the answer; none: the manifest's default.
    graph: Name | None = None
    # Further graphs of the bundle that answer the same snapshot; their counts travel beside the answer.
    compare: tuple[Name, ...] = ()
    # ONNX Runtime provider. cuda refuses a graph that would place any node on the CPU.
    provider: Literal["cpu", "cuda"] = "cpu"
    # With cuda: go on on the CPU, saying so, where a node has no CUDA kernel.
    allow_cpu_fallback: bool = False
    # Threads of one graph.
    threads: int = Field(default=2, ge=1, le=256)


class ReferenceSection(Section):
    """The view that the others are synchronised to."""

    # fixed: always `view`; freshest: the latest capture; median: the view with the smallest total |offset|.
    policy: Literal["fixed", "freshest", "median"] = "median"
    # With policy fixed: which view.
    view: Name | None = None


class GateSection(Section):
    """Which frames may take part in an answer."""

    # A frame captured longer ago than this is refused on arrival and left out of answers, seconds.
    max_age_s: float = Field(default=15.0, gt=0, le=3600)
    # A view this far from the reference is left out, seconds; none: the range that the bundle was trained
    # for.
    max_offset_s: float | None = Field(default=None, gt=0, le=3600)
    # How far beyond its own uncertainty a capture time may lie in the future, milliseconds.
    max_future_ms: float = Field(default=250.0, ge=0, le=60_000)
    # An offset less certain than this is given to the model as unknown, milliseconds.
    max_uncertainty_ms: float = Field(default=2000.0, gt=0, le=3_600_000)
    # Fewest usable views that make an answer.
    min_views: int = Field(default=1, ge=1, le=64)


class RateSection(Section):
    """When the hub speaks."""

    # Most answers per second.
    max_rate_hz: float = Field(default=10.0, gt=0, le=1000)
    # Without an answer for this long the hub publishes a degraded status, and repeats it, milliseconds.
    silence_ms: float = Field(default=5000.0, ge=50, le=3_600_000)


class SecuritySection(Section):
    """CURVE: who may speak and who may listen. `viewsync keys make` writes both files."""

    # auto: on where `keys` is given, and required off loopback; on: always; off: never, even off loopback.
    curve: Literal["auto", "on", "off"] = "auto"
    # The hub's secret key file.
    keys: Path | None = None
    # The allow-list: public key -> role, site, scene, views.
    allow: Path | None = None
    # Without CURVE a view belongs to the first agent that sends it until that agent is gone or silent so
    # long, seconds.
    owner_silence_s: float = Field(default=30.0, gt=0, le=3600)


class OutputsSection(Section):
    """Where predictions go."""

    # PUB socket for subscribers.
    bind: Endpoint = "tcp://127.0.0.1:5556"


class HubConfig(Section):
    """`viewsync hub --config hub.yaml`."""

    # Folder or .zip that `viewsync export` wrote.
    bundle: Path
    # Name of this installation; agents of another site are refused.
    site: Name = "default"
    # ROUTER socket for agents.
    bind: Endpoint = "tcp://127.0.0.1:5555"
    model: ModelSection = ModelSection()
    reference: ReferenceSection = ReferenceSection()
    gates: GateSection = GateSection()
    rate: RateSection = RateSection()
    security: SecuritySection = SecuritySection()
    outputs: OutputsSection = OutputsSection()
    health: HealthSection = HealthSection()


def uses_curve(security: SecuritySection, endpoints: tuple[str, ...]) -> bool:
    """Whether the sockets bound at `endpoints` speak CURVE.

    Raises ConfigError: CURVE is needed, because an endpoint is reachable from outside or `curve` is on, and
    the key files are not given; or only one of the two is.
    """
    if security.curve == "off":
        return False
    make = "make them with `viewsync keys make --hub` and give security.keys and security.allow (--keys DIR)"
    if security.keys is not None and security.allow is not None:
        return True
    if security.keys is not None or security.allow is not None:
        missing = "security.allow" if security.allow is None else "security.keys"
        raise ConfigError(
            f"{missing} is not given, but CURVE needs both the hub's key and the allow-list; {make}"
        )
    for endpoint in endpoints:
        if not is_loopback(endpoint):
            raise ConfigError(
                f"binding {endpoint} lets other machines in, and there are no keys; {make}, or set"
                " security.curve to off on a network that you trust"
            )
    if security.curve == "on":
        raise ConfigError(f"security.curve is on and there are no keys; {make}")
    return False


def policy_of(config: HubConfig, bundle: Bundle) -> Policy:
    """The configuration's policy for this bundle. Raises ConfigError: the fixed reference is none of its."""
    gates, references = config.gates, bundle.manifest.references
    if config.reference.policy == "fixed" and config.reference.view not in references:
        raise ConfigError(
            f"reference.view is {config.reference.view}; give {', '.join(references)}, "
            "or let reference.policy be median or freshest"
        )
    trained_s = bundle.manifest.offset.trained_s
    max_offset_s = gates.max_offset_s or trained_s
    if max_offset_s > trained_s:
        _log.warning("gates.max_offset_s is %g, the bundle was trained to %g s", max_offset_s, trained_s)
    return Policy(
        kind=config.reference.policy,
        view=config.reference.view,
        references=references,
        max_age_ns=round(gates.max_age_s * SECOND_NS),
        max_future_ns=round(gates.max_future_ms * MS_NS),
        max_offset_ns=round(max_offset_s * SECOND_NS),
        max_uncertainty_ns=round(gates.max_uncertainty_ms * MS_NS),
        min_views=gates.min_views,
        min_interval_ns=round(SECOND_NS / config.rate.max_rate_hz),
    )


def rules_of(config: HubConfig, bundle: Bundle) -> BufferRules:
    """What the buffer demands of messages under this configuration and bundle. Raises ConfigError."""
    views, spec, gates = bundle.manifest.views, bundle.manifest.features, config.gates
    if gates.min_views > len(views):
        raise ConfigError(
            f"gates.min_views is {gates.min_views}, the bundle has {len(views)} views; give at most that"
        )
    names = (config.model.graph or bundle.manifest.default, *config.model.compare)
    graphs = [bundle.manifest.fusion[name] for name in names if name in bundle.manifest.fusion]
    return BufferRules(
        site=config.site,
        scene=bundle.scene.name,
        hashes={view: bundle.features_hash(view) for view in views},
        shape=(spec.channels, spec.height, spec.width),
        levels=spec.levels,
        max_age_ns=round(gates.max_age_s * SECOND_NS),
        max_future_ns=round(gates.max_future_ms * MS_NS),
        max_uncertainty_ns=round(gates.max_uncertainty_ms * MS_NS),
        depth=2 if any(takes_before(graph) for graph in graphs) else 1,
    )
