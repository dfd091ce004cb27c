"""The process's metrics in one registry. Names say their unit; labels never hold what a client chose."""

import os
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

# From half a millisecond (a local node) to ten seconds (a provider in trouble).
_LATENCY_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2.5, 10)
_CALLS = (0, 1, 2, 3, 4, 6, 8, 16, 32)


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.rpc_calls = Counter(
            "rtserver_rpc_calls_total",
            "JSON-RPC calls sent, by what they were for (block, load, head, probe)",
            ["chain", "purpose", "method"],
            registry=r,
        )
        self.rpc_errors = Counter(
            "rtserver_rpc_errors_total", "JSON-RPC calls that failed", ["chain", "kind"], registry=r
        )
        self.rpc_latency = Histogram(
            "rtserver_rpc_seconds", "JSON-RPC round trips", ["chain"], buckets=_LATENCY_S, registry=r
        )
        self.subscriptions = Gauge(
            "rtserver_subscriptions", "Open subscriptions to new heads; with none, heads are polled", ["chain"],
            registry=r,
        )  # fmt: skip
        endpoint = ["chain", "endpoint"]
        self.endpoint_requests = Counter(
            "rtserver_endpoint_calls_total", "JSON-RPC calls sent to an endpoint", endpoint, registry=r
        )
        self.endpoint_errors = Counter(
            "rtserver_endpoint_errors_total",
            "What went wrong at an endpoint: no answer, or an error object, by what it means",
            [*endpoint, "kind"],
            registry=r,
        )
        self.endpoint_seconds = Histogram(
            "rtserver_endpoint_seconds", "Round trips to an endpoint", endpoint, buckets=_LATENCY_S, registry=r
        )
        self.endpoint_breaker = Gauge(
            "rtserver_endpoint_breaker",
            "An endpoint's circuit breaker: 0 closed, 1 trying, 2 open",
            endpoint,
            registry=r,
        )
        self.endpoint_head = Gauge(
            "rtserver_endpoint_head_number", "Height of the newest block that an endpoint told of", endpoint, registry=r
        )
        self.endpoint_in_flight = Gauge(
            "rtserver_endpoint_in_flight", "Messages that an endpoint has not answered yet", endpoint, registry=r
        )
        self.endpoint_view = Gauge(
            "rtserver_endpoint_view",
            "How an endpoint's chain is to ours: 0 unknown, 1 the same, 2 behind, 3 another fork",
            endpoint,
            registry=r,
        )
        self.endpoint_error_rate = Gauge(
            "rtserver_endpoint_error_ratio", "Share of an endpoint's last messages that were not answered", endpoint,
            registry=r,
        )  # fmt: skip
        self.endpoint_success_age = Gauge(
            "rtserver_endpoint_success_age_seconds", "Time since an endpoint's last answer", endpoint, registry=r
        )
        self.endpoint_rests = Gauge(
            "rtserver_endpoint_rests_seconds", "For how much longer an endpoint is left alone", endpoint, registry=r
        )
        self.endpoint_budget = Gauge(
            "rtserver_endpoint_budget_calls",
            "Calls that may be asked of an endpoint at once now; infinite without a rate",
            endpoint,
            registry=r,
        )
        self.hedges = Counter(
            "rtserver_hedges_total",
            "Slow reads that a second endpoint was asked for as well; won: it was first",
            [*endpoint, "outcome"],
            registry=r,
        )
        self.retries = Counter(
            "rtserver_rpc_retries_total", "Rounds over the endpoints after one without an answer", ["chain"], registry=r
        )
        self.block_calls = Histogram(
            "rtserver_block_rpc_calls", "JSON-RPC calls that one block took", ["chain"], buckets=_CALLS, registry=r
        )
        self.block_latency = Histogram(
            "rtserver_block_seconds",
            "From a head's arrival until its frames are written",
            ["chain"],
            buckets=_LATENCY_S,
            registry=r,
        )
        self.blocks = Counter("rtserver_blocks_total", "Blocks taken in", ["chain", "kind"], registry=r)
        self.head = Gauge("rtserver_head_number", "Height of the head", ["chain"], registry=r)
        self.head_time = Gauge(
            "rtserver_head_timestamp_seconds", "Timestamp of the head, since the epoch", ["chain"], registry=r
        )
        self.head_behind = Gauge(
            "rtserver_head_behind_blocks", "Blocks that nodes announced and that were not published yet", ["chain"],
            registry=r,
        )  # fmt: skip
        self.tagged = Gauge(
            "rtserver_tagged_number",
            "Height of the newest block that the nodes call safe, and finalized",
            ["chain", "tag"],
            registry=r,
        )
        self.tracked = Gauge("rtserver_tracked", "What is tracked", ["chain", "kind"], registry=r)
        self.recomputed = Counter(
            "rtserver_positions_changed_total", "Positions whose values changed", ["chain"], registry=r
        )
        self.store_head = Gauge("rtserver_store_head_number", "Height of the last checkpoint", ["chain"], registry=r)
        self.store_take = Histogram(
            "rtserver_store_take_seconds",
            "Collecting a checkpoint, between two blocks",
            ["chain"],
            buckets=_LATENCY_S,
            registry=r,
        )
        self.store_write = Histogram(
            "rtserver_store_write_seconds", "Writing a checkpoint, beside the blocks", ["chain"], buckets=_LATENCY_S,
            registry=r,
        )  # fmt: skip
        self.store_rows = Counter("rtserver_store_rows_total", "Facts written", ["chain"], registry=r)
        self.store_errors = Counter("rtserver_store_errors_total", "Checkpoints not written", ["chain"], registry=r)
        self.price_tokens = Gauge(
            "rtserver_price_tokens",
            "Watched tokens by who prices them now; none: nobody does",
            ["chain", "source"],
            registry=r,
        )
        self.prices_disputed = Gauge(
            "rtserver_prices_disputed", "Watched tokens whose sources contradict each other", ["chain"], registry=r
        )
        self.price_feeds = Gauge(
            "rtserver_price_feeds", "Chainlink feeds, by whether their answer can be used", ["chain", "state"],
            registry=r,
        )  # fmt: skip
        self.price_requests = Counter(
            "rtserver_price_requests_total", "Requests to price sources, by how they ended", ["source", "outcome"],
            registry=r,
        )  # fmt: skip
        self.price_source_age = Gauge(
            "rtserver_price_source_age_seconds", "Since a price source last answered", ["source"], registry=r
        )
        self.price_source_away = Gauge(
            "rtserver_price_source_away", "1 while a price source is paused for having failed", ["source"], registry=r
        )
        self.history_queue = Gauge(
            "rtserver_history_queue_rows", "Records that wait to be written", ["chain"], registry=r
        )
        self.history_take = Histogram(
            "rtserver_history_take_seconds",
            "Taking records of a block, before the next one is looked at",
            ["chain"],
            buckets=_LATENCY_S,
            registry=r,
        )
        self.history_write = Histogram(
            "rtserver_history_write_seconds", "Writing a batch of records, beside the blocks", ["chain"],
            buckets=_LATENCY_S, registry=r,
        )  # fmt: skip
        self.history_rows = Counter("rtserver_history_rows_total", "Records written", ["chain"], registry=r)
        self.history_dropped = Counter(
            "rtserver_history_dropped_total", "Records dropped because the queue was full", ["chain"], registry=r
        )
        self.history_errors = Counter(
            "rtserver_history_errors_total", "Tries to write records that failed", ["chain"], registry=r
        )
        self.connections = Gauge("rtserver_connections", "Open client sockets", registry=r)
        self.channels = Gauge("rtserver_channels", "Channels with a state", registry=r)
        self.ring_changes = Gauge(
            "rtserver_ring_changes", "Changes that channels keep for clients that come back", registry=r
        )
        self.frames = Counter("rtserver_frames_total", "Frames written to clients", registry=r)
        self.frame_bytes = Counter("rtserver_frame_bytes_total", "Bytes written to clients", registry=r)
        self.lagging = Counter("rtserver_lagging_total", "Times that a client fell behind", registry=r)
        self.heals = Counter(
            "rtserver_heals_total", "Times that a gateway had to read again what it holds", ["chain"], registry=r
        )
        self.fenced = Counter(
            "rtserver_fenced_total",
            "Times that an engine lost its charge",
            ["chain"],
            registry=r,
        )
        self.in_charge = Gauge("rtserver_in_charge", "Whether this engine publishes: 0 or 1", ["chain"], registry=r)
        self.steps_lost = Counter(
            "rtserver_steps_dropped_total", "Steps that an engine could not publish in time", ["chain"], registry=r
        )
        self.answers = Counter(
            "rtserver_answers_total",
            "Answers that an engine computed for gateways: asked for, or ahead of being asked for",
            ["chain", "reason"],
            registry=r,
        )
        self.cache_hits = Counter(
            "rtserver_cache_hits_total", "Found in a cache as it has to be: no work behind it", ["cache"], registry=r
        )
        self.cache_misses = Counter(
            "rtserver_cache_misses_total", "Not found in a cache: computed, asked for or loaded", ["cache"], registry=r
        )
        self.limits_alone = Counter(
            "rtserver_limits_alone_total",
            "Times that a gateway could not reach the limits it shares with others, by limit",
            ["limit"],
            registry=r,
        )
        # Two numbers, as one grows without the other: memory that is used, and memory that was.
        Gauge(
            "rtserver_resident_bytes", "Memory of the process; 0 where the system does not tell", registry=r
        ).set_function(_resident_bytes)
        Gauge("rtserver_memory_blocks", "Blocks of memory that are in use", registry=r).set_function(
            sys.getallocatedblocks
        )
        self.client_errors = Counter("rtserver_client_errors_total", "Errors answered to clients", ["code"], registry=r)
        self.process_up = Gauge(
            "rtserver_process_up", "Whether a process of the supervisor serves: 0 or 1", ["process"], registry=r
        )
        self.process_restarts = Counter(
            "rtserver_process_restarts_total", "Times that a process had to be started again", ["process"], registry=r
        )
        self.http = Counter("rtserver_http_requests_total", "HTTP requests", ["route", "status"], registry=r)

    def render(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)


def _resident_bytes() -> int:
    try:
        # Linux: the second number is that of resident pages.
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
