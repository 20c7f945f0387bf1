"""Counters of the demo's programs, read from their metrics pages and added up over restarts."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping

from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 0.3


class Counters:
    """Totals by (program, counter, label values); a counter that fell was one of a program started again."""

    def __init__(self, ports: Mapping[str, int], fetch: Callable[[str, int], str] | None = None) -> None:
        """fetch: gets a program's page by its name and port, where this one's network does not reach it.
        Raises OSError where it does not answer.
        """
        self._ports = ports
        self._fetch = fetch or (lambda program, port: page_at(port))
        self._before: dict[tuple[str, ...], float] = defaultdict(float)
        self._now: dict[tuple[str, ...], float] = defaultdict(float)

    def read(self) -> None:
        """Ask every program for its page; one that does not answer keeps its last figures."""
        for program, port in self._ports.items():
            try:
                self.take(program, self._fetch(program, port))
            except OSError:
                continue

    def take(self, program: str, page: str) -> None:
        """Take one page of metrics in Prometheus' text format."""
        for family in text_string_to_metric_families(page):
            for sample in family.samples if family.type == "counter" else ():
                if not sample.name.endswith("_total"):
                    continue
                key = (program, sample.name, *sample.labels.values())
                if sample.value < self._now[key]:
                    self._before[key] += self._now[key]
                self._now[key] = sample.value

    def total(self, name: str) -> float:
        """Sum of a counter (with `_total`) over programs, labels and restarts."""
        return sum(value + self._before[key] for key, value in self._now.items() if key[1] == name)

    def by_label(self, name: str) -> dict[str, int]:
        """The same by the counter's first label; zeros are left out."""
        found: dict[str, int] = defaultdict(int)
        for key, value in self._now.items():
            if key[1] == name and value + self._before[key]:
                found[key[2]] += round(value + self._before[key])
        return dict(found)


def page_at(port: int) -> str:
    """The metrics page at a port of this machine. Raises OSError where nobody answers."""
    # Loopback only: a proxy of the environment has no business here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_S) as page:
        text: str = page.read().decode()
    return text
