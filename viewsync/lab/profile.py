"""A network profile: how bad each view's link is and when, and how its camera takes pictures.

One YAML file per profile; those in `viewsync/lab/profiles/` are known by name, others by path. What a link
does with packets under a profile is in `timeline.py`, and the keys mean what they mean there: netem's model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from viewsync.config import Section, load_config
from viewsync.errors import ConfigError
from viewsync.lab import named

FOLDER = Path(__file__).with_name("profiles")

_Delay = Annotated[float, Field(ge=0, le=60_000)]


class Period(Section):
    """A time in which something is off."""

    # When it begins, seconds after the site's time 0.
    at_s: float = Field(ge=0, le=1e6)
    # How long it lasts, seconds; none: for ever.
    for_s: float | None = Field(default=None, gt=0, le=1e6)

    def covers(self, at_s: float) -> bool:
        """Whether `at_s` lies in it, its beginning included and its end not."""
        return self.at_s <= at_s and (self.for_s is None or at_s < self.at_s + self.for_s)


class Direction(Section):
    """One way of a link."""

    # Mean delay, milliseconds.
    delay_ms: _Delay = 0.0
    # Its spread: standard deviation (normal), half the width (uniform), scale (pareto), milliseconds.
    jitter_ms: _Delay = 0.0
    # pareto: as netem's table, long late tail. Packets keep their order whatever the jitter.
    jitter_distribution: Literal["normal", "uniform", "pareto"] = "normal"
    # Share of packets lost in the long run.
    loss: float = Field(default=0.0, ge=0, le=1)
    # Losses come together (Gilbert and Elliott's two states): packets that the bad state lasts on average;
    # none: each packet is lost for itself.
    loss_burst_packets: float | None = Field(default=None, ge=1, le=1e5)
    # Share of packets lost while the bad state lasts.
    loss_in_burst: float = Field(default=1.0, gt=0, le=1)
    # Bits of packets (with their IP header) per second; none: as fast as the machine, kbit/s.
    rate_kbit_s: float | None = Field(default=None, ge=1, le=1e7)
    # Packets under way at most, those delayed included; further ones are lost.
    queue_packets: int = Field(default=1000, ge=1, le=1_000_000)
    # Share of packets that skip delay and queue, and so overtake others.
    reorder: float = Field(default=0.0, ge=0, lt=1)
    # When everything is lost.
    outages: tuple[Period, ...] = ()

    @property
    def to_good(self) -> float:
        """Chance per packet that the bad state ends."""
        return 1.0 / (self.loss_burst_packets or 1.0)

    @property
    def to_bad(self) -> float:
        """Chance per packet that the good state ends, for the long run to lose `loss`."""
        bad = self.loss / self.loss_in_burst
        return self.to_good * bad / (1.0 - bad) if bad < 1.0 else 1.0

    def is_out(self, at_s: float) -> bool:
        """Whether an outage covers `at_s`."""
        return any(outage.covers(at_s) for outage in self.outages)


class CameraSection(Section):
    """How one simulated camera takes pictures, and what its clock shows."""

    # Frames per second.
    fps: float = Field(default=0.5, gt=0, le=60)
    # When it takes its first frame, seconds after time 0: the offset between cameras of one rate.
    phase_s: float = Field(default=0.0, ge=0, le=1e4)
    # How far its clock is ahead of the true time, seconds.
    clock_offset_s: float = Field(default=0.0, ge=-20_000, le=20_000)
    # How much too fast its clock runs, parts per million.
    clock_drift_ppm: float = Field(default=0.0, ge=-400, le=400)
    # Share of its frames that never happen.
    drop: float = Field(default=0.0, ge=0, lt=1)
    # When it is dead and sends nothing.
    dead: tuple[Period, ...] = ()

    def is_dead(self, at_s: float) -> bool:
        """Whether the camera is dead at `at_s`."""
        return any(period.covers(at_s) for period in self.dead)


class ViewSection(Section):
    """One view: its camera, and the link between its agent and the hub."""

    # From the agent to the hub.
    up: Direction = Direction()
    # From the hub to the agent.
    down: Direction = Direction()
    camera: CameraSection = CameraSection()


class _File(Section):
    about: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    defaults: ViewSection = ViewSection()
    views: dict[int | str, ViewSection] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile that holds together. about: a line for people; seed: of all chance in links and cameras.

    `defaults` is every view, `overrides` what differs: by name, or by place (1 is the bundle's first view).
    """

    name: str
    about: str
    seed: int
    defaults: ViewSection
    overrides: Mapping[int | str, ViewSection]

    def of_views(self, views: Sequence[str]) -> dict[str, ViewSection]:
        """What the profile says of each of `views`, in their order.

        An override by name goes over one by place; places beyond the last view say nothing. Raises
        ConfigError for an override of a view that is none of these.
        """
        for key in self.overrides:
            if isinstance(key, str) and key not in views:
                raise ConfigError(
                    f"profile {self.name}: views.{key}: there is no such view; "
                    f"the bundle has {', '.join(views)}"
                )
        return {
            view: self._over(self._over(self.defaults, place), view)
            for place, view in enumerate(views, start=1)
        }

    def _over(self, section: ViewSection, key: int | str) -> ViewSection:
        override = self.overrides.get(key)
        return section if override is None else _merged(section, override)


def names() -> list[str]:
    """Names of the profiles that come with viewsync."""
    return named.names(FOLDER)


def load_profile(name_or_path: str) -> Profile:
    """A profile by name (`lte-bad`) or by the path of a YAML file. Raises ConfigError."""
    path = named.named_file("profile", FOLDER, name_or_path)
    file = load_config(_File, path)
    profile = Profile(path.stem, file.about, file.seed, file.defaults, file.views)
    _check(path, profile)
    return profile


def _merged(base: Any, over: Any) -> Any:
    """`base` with the fields that `over` sets; sections within it likewise."""
    changes = {}
    for name in over.model_fields_set:
        value = getattr(over, name)
        nested = isinstance(value, (ViewSection, Direction, CameraSection))
        changes[name] = _merged(getattr(base, name), value) if nested else value
    return base.model_copy(update=changes)


def _check(path: Path, profile: Profile) -> None:
    """What single keys cannot say, and overrides only with the defaults under them."""
    for key in profile.overrides:
        if isinstance(key, int) and key < 1:
            raise ConfigError(f"{path}: views.{key}: views are counted from 1, in the bundle's order")
    sections = {"defaults": profile.defaults}
    sections |= {f"views.{key}": _merged(profile.defaults, over) for key, over in profile.overrides.items()}
    for where, section in sections.items():
        for way, direction in (("up", section.up), ("down", section.down)):
            if direction.jitter_ms > direction.delay_ms:
                raise ConfigError(
                    f"{path}: {where}.{way}: jitter_ms {direction.jitter_ms:g} is more than delay_ms "
                    f"{direction.delay_ms:g}, and no packet arrives before it was sent; raise the delay"
                )
            bursty = direction.loss_burst_packets is not None
            if bursty and (direction.loss >= direction.loss_in_burst or direction.to_bad > 1):
                raise ConfigError(
                    f"{path}: {where}.{way}: bursts of {direction.loss_burst_packets:g} packets of which "
                    f"{direction.loss_in_burst:g} are lost cannot add up to a loss of {direction.loss:g}; "
                    "raise loss_burst_packets or loss_in_burst"
                )
