"""nginx with nchan, and the publisher that it needs: one POST a broadcast, on the load generator's core.

Starts one nginx process without a master, tells the bench its process id, and ends it with itself.
"""

import asyncio
import contextlib
import http.client
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from bench.peers.control import broadcast, obey

_MODULE: Final = "/usr/lib/nginx/modules/ngx_nchan_module.so"
_CONFIG: Final = """
load_module {module};
daemon off;
master_process off;
worker_rlimit_nofile 1000000;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 200000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  keepalive_timeout 3600s;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /ws {{
      nchan_subscriber websocket;
      nchan_channel_id bench;
      nchan_subscriber_first_message newest;
      nchan_websocket_ping_interval 0;
    }}
    location = /publish {{
      nchan_publisher http;
      nchan_channel_id bench;
      nchan_message_buffer_length 2;
    }}
  }}
}}
"""
_START_TIMEOUT_S: Final = 10.0


def _serve(port: int, prefix: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(_CONFIG.format(module=_MODULE, folder=folder, port=port))
        process = subprocess.Popen([*prefix, "nginx", "-p", folder, "-e", f"{folder}/error.log", "-c", str(config)])
        try:
            asyncio.run(_publish(port, process.pid))
        finally:
            process.kill()
            process.wait()


async def _publish(port: int, pid: int) -> None:
    publisher = await _connect(port)

    def send(payload: bytes) -> None:
        publisher.request("POST", "/publish", body=payload)
        answer = publisher.getresponse()
        answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"nchan answered {answer.status}")

    async def handle(command: dict[str, Any]) -> None:
        await broadcast(command, send)

    await obey(port, handle, pid=pid)


async def _connect(port: int) -> http.client.HTTPConnection:
    async with asyncio.timeout(_START_TIMEOUT_S):
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with contextlib.suppress(OSError):
                connection.connect()
                return connection
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2:])
