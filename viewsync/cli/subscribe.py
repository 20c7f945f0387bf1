"""`viewsync subscribe`: the hub's predictions, one line each."""

import json
import logging
import math
import time
from pathlib import Path

import click

from viewsync.errors import KeysError, UserError, WireError
from viewsync.prediction import Prediction, Status, ViewReport, summary

_log = logging.getLogger(__name__)

# A stop signal is noticed this late; messages are printed as they come.
_STOP_CHECK_S = 0.25
# A hub that runs has been reached long before; then it publishes at least its status.
_PATIENCE_S = 3.0


@click.command()
@click.argument("endpoint", default="tcp://127.0.0.1:5556")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after this many predictions.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this long.")
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), help="Own secret, subscriber-NAME.key."
)
@click.option("--hub-key", type=click.Path(path_type=Path, dir_okay=False), help="The hub's hub.pub.")
def command(
    endpoint: str,
    as_json: bool,
    count: int | None,
    seconds: float | None,
    key: Path | None,
    hub_key: Path | None,
) -> None:
    """Print what the hub at ENDPOINT publishes, until Ctrl-C.

    A line has the time of capture, the count (and the other graphs' counts), the latency, and of each view
    its offset from the reference and its age, or why it was left out.

    \b
    viewsync subscribe
    viewsync subscribe tcp://hub.example:5556 --key keys/subscriber-wall.key --hub-key keys/hub.pub
    viewsync subscribe --count 1 --json
    """
    from viewsync.cli.stop import stopping
    from viewsync.client import Subscriber
    from viewsync.keys import load_client_keys

    if (key is None) != (hub_key is None):
        raise KeysError("subscribe: give both --key and --hub-key, or neither for a hub without CURVE")
    keys = load_client_keys(key, hub_key) if key is not None and hub_key is not None else None
    stop = stopping()
    deadline = None if seconds is None else time.monotonic() + seconds
    printed = 0
    gone = reached = False
    told_after = time.monotonic() + _PATIENCE_S
    with Subscriber(endpoint, keys) as hub:
        while not stop.is_set():
            left = _STOP_CHECK_S if deadline is None else min(_STOP_CHECK_S, deadline - time.monotonic())
            if left <= 0:
                break
            try:
                message = hub.receive(left)
            except WireError as error:
                _log.warning("%s: skipped a message: %s", endpoint, error)
                continue
            if hub.connected:
                if gone:
                    _log.warning("%s: the hub is back", endpoint)
                told_after, gone, reached = math.inf, False, True
            elif reached and not gone:
                _log.warning("%s: the hub went away; waiting for it", endpoint)
                gone = True
            elif time.monotonic() > told_after:
                told_after = math.inf
                _log.warning("%s: no hub there; check the address, and that the hub runs; waiting", endpoint)
            if message is None:
                continue
            click.echo(json.dumps(summary(message)) if as_json else line(message))
            printed += isinstance(message, Prediction)
            if count is not None and printed >= count:
                return
    if count is not None and not stop.is_set():
        raise UserError(
            f"{endpoint}: {printed} of {count} predictions within {seconds:g} s; does the hub run?"
        )


def line(message: Prediction | Status) -> str:
    """One readable line."""
    views = "; ".join(_view(report) for report in message.views)
    if isinstance(message, Status):
        return f"{_clock(message.published_ns)}  no answer: {message.reasons[0]}  [{views}]"
    others = ", ".join(
        f"{name} {value:.1f}" for name, value in message.counts.items() if name != message.synchroniser
    )
    zones = ", ".join(f"{name} {value:.1f}" for name, value in message.zones.items())
    parts = [
        f"{_clock(message.capture_ns)}  count {message.count:.1f} ({message.synchroniser})",
        f"({others})" if others else "",
        f"zones {zones}" if zones else "",
        f"latency {message.latency_ns / 1e9:.2f} s",
        f"[{views}]",
        "degraded" if message.degraded else "",
    ]
    return "  ".join(part for part in parts if part)


def _view(report: ViewReport) -> str:
    if not report.used or report.offset_ns is None or report.age_ns is None:
        return f"{report.view}: {report.reason}"
    uncertainty = "" if not report.uncertainty_ns else f"±{report.uncertainty_ns / 1e9:.2f}"
    return f"{report.view} {report.offset_ns / 1e9:+.2f}{uncertainty} s, age {report.age_ns / 1e9:.1f} s"


def _clock(utc_ns: int) -> str:
    """HH:MM:SS.mmm in UTC."""
    seconds, rest = divmod(utc_ns, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03d}Z"
