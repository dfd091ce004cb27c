"""The dashboard and the browser client: where their files are, and under which policy they are meant to be served.

It serves nothing and reads nothing; `edge` maps `/` to INDEX_HTML and `/static/` to STATIC_DIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["CONTENT_SECURITY_POLICY", "INDEX_HTML", "STATIC_DIR"]

INDEX_HTML: Final = Path(__file__).with_name("index.html")
STATIC_DIR: Final = Path(__file__).with_name("static")

# No inline script or style and no foreign host, because token names come from strangers. Sockets are named apart:
# not every browser counts ws: as 'self'.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
