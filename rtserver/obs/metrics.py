"""The process's metrics in one registry. Names say their unit; labels never hold what a client chose."""

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
        self.tracked = Gauge("rtserver_tracked", "What is tracked", ["chain", "kind"], registry=r)
        self.recomputed = Counter(
            "rtserver_positions_changed_total", "Positions whose values changed", ["chain"], registry=r
        )
        self.connections = Gauge("rtserver_connections", "Open client sockets", registry=r)
        self.channels = Gauge("rtserver_channels", "Channels with a state", registry=r)
        self.frames = Counter("rtserver_frames_total", "Frames written to clients", registry=r)
        self.frame_bytes = Counter("rtserver_frame_bytes_total", "Bytes written to clients", registry=r)
        self.lagging = Counter("rtserver_lagging_total", "Times that a client fell behind", registry=r)
        self.client_errors = Counter("rtserver_client_errors_total", "Errors answered to clients", ["code"], registry=r)
        self.http = Counter("rtserver_http_requests_total", "HTTP requests", ["route", "status"], registry=r)

    def render(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)
