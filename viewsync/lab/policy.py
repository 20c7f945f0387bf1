"""A hub's policy by name: the `reference`, `gates` and `rate` sections of `viewsync hub`'s configuration.

One YAML file per policy; those in `viewsync/lab/policies/` are known by name, others by path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hub.buffer import BufferRules
from hub.config import (
    GateSection,
    HubConfig,
    ModelSection,
    RateSection,
    ReferenceSection,
    policy_of,
    rules_of,
)
from hub.reference import Policy
from viewsync.bundle import Bundle
from viewsync.config import Section, load_config
from viewsync.lab import named

FOLDER = Path(__file__).with_name("policies")


class _File(Section):
    about: str = ""
    reference: ReferenceSection = ReferenceSection()
    gates: GateSection = GateSection()
    rate: RateSection = RateSection()


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy as it stands in its file; which views it means is the bundle's matter."""

    name: str
    about: str
    reference: ReferenceSection
    gates: GateSection
    rate: RateSection

    def config(self, bundle: Path, site: str = "lab") -> HubConfig:
        """The configuration of a hub under this policy."""
        return HubConfig(bundle=bundle, site=site, reference=self.reference, gates=self.gates, rate=self.rate)

    def for_bundle(self, bundle: Bundle) -> tuple[Policy, BufferRules]:
        """What the hub goes by with this bundle, whichever graph answers. Raises ConfigError where the
        two do not fit.
        """
        every = ModelSection(compare=tuple(bundle.manifest.fusion))
        config = self.config(bundle.path).model_copy(update={"model": every})
        return policy_of(config, bundle), rules_of(config, bundle)


def names() -> list[str]:
    """Names of the policies that come with viewsync."""
    return named.names(FOLDER)


def load_policy(name_or_path: str) -> NamedPolicy:
    """A policy by name (`default`) or by the path of a YAML file. Raises ConfigError."""
    path = named.named_file("policy", FOLDER, name_or_path)
    file = load_config(_File, path)
    return NamedPolicy(path.stem, file.about, file.reference, file.gates, file.rate)
