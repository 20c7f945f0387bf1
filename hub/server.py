"""The hub's loop: it owns the sockets and the clock, and everything that decides is called with the time.

One turn: wait for an arrival (or for the moment when an answer or a status is due), authenticate
connections, take what has come, reply to each message, answer if the frames have changed.
"""

import logging
import secrets
import threading
import time
from collections import Counter
from contextlib import ExitStack

import zmq
from prometheus_client import CollectorRegistry

from hub.access import AllowList, Authenticator
from hub.buffer import BufferRules, Verdict, ViewBuffer
from hub.claims import FirstClaims, KeyClaims
from hub.config import HubConfig, policy_of, rules_of, uses_curve
from hub.fusion import Fusion
from hub.metrics import HubMetrics
from hub.outputs import Outputs
from hub.receiver import Arrival, Receiver
from hub.reference import Policy
from hub.step import silence, step
from viewsync.bundle import Bundle
from viewsync.clock import SteadyClock
from viewsync.errors import WireError
from viewsync.health import HealthServer
from viewsync.keys import load_keypair
from viewsync.units import MS_NS, SECOND_NS
from viewsync.wire import Ack, ClockProbe, ClockReply, FeatureMessage, Refusal, decode

_log = logging.getLogger(__name__)

# A `threading.Event` cannot be polled beside sockets: `stop` is looked at this often; arrivals wake at once.
_STOP_CHECK_NS = 250 * MS_NS

# A reason for refusal is logged when it first occurs and then at most this often, with the number since.
_LOG_EVERY_NS = 30 * SECOND_NS

# The loop counts as stuck when a turn takes longer than this: far above any model's time.
_STUCK_NS = 30 * SECOND_NS


def run(config: HubConfig, stop: threading.Event) -> None:
    """Run a hub until `stop` is set; returns within two seconds or after an answer under way.

    Raises ConfigError (keys missing off loopback, an address that cannot be bound, a graph or view that the
    bundle has not), BundleError, KeysError, UserError (provider).
    """
    curve = uses_curve(config.security, (config.bind, config.outputs.bind))
    bundle = Bundle.load(config.bundle)
    policy = policy_of(config, bundle)
    rules = rules_of(config, bundle)
    with ExitStack() as stack:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        hub = _Hub(config, bundle, policy, rules, context, curve, stack)
        if config.health.port is not None:
            server = HealthServer(config.health.host, config.health.port, hub.metrics.registry, hub.health)
            stack.callback(server.close)
            _log.info("metrics and health on http://%s:%d", server.host, server.port)
        hub.loop(stop)


class _Hub:
    """Everything of one run. `stack` closes what it opens."""

    def __init__(
        self,
        config: HubConfig,
        bundle: Bundle,
        policy: Policy,
        rules: BufferRules,
        context: "zmq.Context[zmq.Socket[bytes]]",
        curve: bool,
        stack: ExitStack,
    ) -> None:
        # Steady: setting the machine's clock must not shift the offsets between frames before and after.
        self.now = SteadyClock(time.time_ns, time.monotonic_ns)
        self.policy = policy
        self.silence_ns = round(config.rate.silence_ms * MS_NS)
        self.buffer = ViewBuffer(rules, secrets.randbits(63))
        self.refused: Counter[str] = Counter()
        self.metrics = HubMetrics(rules.hashes, CollectorRegistry())
        self.turned_ns = time.monotonic_ns()
        self._logged: dict[str, tuple[int, int]] = {}  # reason -> (when logged, count then)

        key, allow = None, None
        if curve and config.security.keys is not None and config.security.allow is not None:
            key, allow = load_keypair(config.security.keys), AllowList(config.security.allow)
        # The addresses first: whoever started a second hub learns it at once, not after the model has loaded.
        self.authenticator = None
        if allow is not None:
            denied = self.metrics.denied
            self.authenticator = Authenticator(context, allow, lambda domain: denied.labels(domain).inc())
        self.receiver = Receiver(context, config.bind, key, self.now)
        self.outputs = Outputs(context, config.outputs.bind, key)
        for closing in (self.authenticator, self.receiver, self.outputs):
            if closing is not None:
                stack.callback(closing.close)
        self.claims: KeyClaims | FirstClaims
        if allow is not None:
            self.claims = KeyClaims(allow)
        else:
            silence_ns = round(config.security.owner_silence_s * SECOND_NS)
            self.claims = FirstClaims(silence_ns, self.receiver.is_connected)
        model = config.model
        self.fusion = Fusion(
            bundle,
            (model.graph or bundle.manifest.default, *model.compare),
            model.provider,
            model.threads,
            model.allow_cpu_fallback,
        )
        self.fusion.warm_up()
        self.metrics.cpu_fallback.set(self.fusion.on_cpu_against_wish)
        if not curve and config.security.curve == "off":
            _log.warning("CURVE is off: whoever reaches %s can send and listen", self.receiver.endpoint)
        _log.info(
            "scene %s, views %s, graph %s on %s; features on %s, predictions on %s%s",
            bundle.scene.name,
            ", ".join(self.fusion.views),
            self.fusion.synchroniser,
            model.provider,
            self.receiver.endpoint,
            self.outputs.endpoint,
            " with CURVE" if curve else "",
        )

    def loop(self, stop: threading.Event) -> None:
        """Turn after turn until `stop` is set."""
        poller = zmq.Poller()
        poller.register(self.receiver.socket, zmq.POLLIN)
        if self.authenticator is not None:
            poller.register(self.authenticator.socket, zmq.POLLIN)
        spoke_ns = self.now()
        while not stop.is_set():
            now_ns = self.now()
            wake_ns = min(spoke_ns + self.silence_ns, now_ns + _STOP_CHECK_NS)
            due_ns = self.buffer.due_ns(now_ns, self.policy.min_interval_ns)
            if due_ns > now_ns and self.buffer.changed:
                wake_ns = min(wake_ns, due_ns)
            # Rounded up: a wait of 0 ms just before the moment would be a busy loop.
            ready = dict(poller.poll(max(0, -(-(wake_ns - now_ns) // MS_NS))))
            self.turned_ns = time.monotonic_ns()
            if self.authenticator is not None and self.authenticator.socket in ready:
                self.authenticator.answer()
            if self.receiver.socket in ready:
                arrivals, superseded = self.receiver.drain()
                self.metrics.superseded.inc(superseded)
                for arrival in arrivals:
                    self._take(arrival)
            if self._speak(spoke_ns):
                spoke_ns = self.now()
            self._gauge()

    def health(self) -> tuple[bool, dict[str, object]]:
        """For /healthz: whether the loop turns; with each view's age in seconds (None: no frame)."""
        stuck = time.monotonic_ns() - self.turned_ns > _STUCK_NS
        now_ns = self.now()
        newest = self.buffer.newest()
        ages = {
            view: round((now_ns - newest[view].capture_ns) / SECOND_NS, 3) if view in newest else None
            for view in self.fusion.views
        }
        return not stuck, {"status": "stuck" if stuck else "ok", "view_age_s": ages}

    def _take(self, arrival: Arrival) -> None:
        try:
            message = self._decoded(arrival)
        except WireError as error:
            self._refuse(arrival, None, Verdict(False, error.reason, error.detail))
            return
        if isinstance(message, ClockProbe):
            self.receiver.reply(arrival.peer, ClockReply(message.sent_ns, arrival.received_ns, self.now()))
            return
        verdict = self.claims.check(arrival.peer, message, arrival.received_ns)
        if verdict.accepted:
            verdict = self.buffer.put(message, arrival.received_ns)
        if not verdict.accepted:
            self._refuse(arrival, message, verdict)
            return
        self.claims.settle(arrival.peer, message, arrival.received_ns)
        self.metrics.messages.labels(message.view).inc()
        self.receiver.reply(
            arrival.peer,
            Ack(message.session, message.seq, message.sent_ns, arrival.received_ns, self.now()),
        )

    def _decoded(self, arrival: Arrival) -> FeatureMessage | ClockProbe:
        if arrival.payload is None:
            raise WireError("not-one-part", "the message has not exactly one part; send one msgpack map")
        message = decode(arrival.payload)
        if not isinstance(message, (FeatureMessage, ClockProbe)):
            raise WireError("unknown-kind", "this kind is what a hub sends; agents send features and clocks")
        return message

    def _refuse(self, arrival: Arrival, message: FeatureMessage | None, verdict: Verdict) -> None:
        self.refused[verdict.reason] += 1
        self.metrics.refused.labels(verdict.reason).inc()
        detail = "".join(letter if letter.isprintable() else "?" for letter in verdict.detail)[:1000]
        self._log_refusal(verdict.reason, detail, arrival.received_ns)
        self.receiver.reply(
            arrival.peer,
            Refusal(
                session=None if message is None else message.session,
                seq=None if message is None else message.seq,
                sent_ns=None if message is None else message.sent_ns,
                received_ns=arrival.received_ns,
                replied_ns=self.now(),
                reason=verdict.reason,
                detail=detail,
            ),
        )

    def _log_refusal(self, reason: str, detail: str, now_ns: int) -> None:
        logged_ns, count = self._logged.get(reason, (now_ns - _LOG_EVERY_NS, 0))
        if now_ns - logged_ns >= _LOG_EVERY_NS:
            more = self.refused[reason] - count - 1
            _log.warning("refused (%s): %s%s", reason, detail, f"; {more} more before" if more else "")
            self._logged[reason] = (now_ns, self.refused[reason])

    def _speak(self, spoke_ns: int) -> bool:
        started_ns = self.now()
        prediction = step(self.buffer, self.fusion, self.policy, started_ns)
        if prediction is not None:
            self.outputs.send(prediction)
            self.metrics.predictions.labels(str(prediction.degraded).lower()).inc()
            self.metrics.step.observe((self.now() - started_ns) / SECOND_NS)
            self.metrics.latency.observe(prediction.latency_ns / SECOND_NS)
            return True
        if started_ns - spoke_ns < self.silence_ns:
            return False
        self.outputs.send(silence(self.buffer, self.fusion, self.policy, started_ns))
        self.metrics.statuses.inc()
        return True

    def _gauge(self) -> None:
        now_ns = self.now()
        for view, entry in self.buffer.newest().items():
            self.metrics.view_age.labels(view).set((now_ns - entry.capture_ns) / SECOND_NS)
            self.metrics.clock_uncertainty.labels(view).set(entry.uncertainty_ns / SECOND_NS)
        self.metrics.wall_clock_offset.set((time.time_ns() - now_ns) / SECOND_NS)
