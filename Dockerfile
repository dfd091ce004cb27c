# Two images from one file:
#   docker build -t rtserver .                      the server
#   docker build -t rtserver-demo --target demo .   a local chain with a market, and the server on it
# Both run as a user without rights, hold the locked dependencies and no build tools, and write nothing but /tmp and
# their volume: the server's store, the demo's tools.

FROM python:3.12-slim-bookworm AS build
ENV UV_PROJECT_ENVIRONMENT=/opt/rtserver \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /src
# Dependencies first: a layer that stays until the lock changes.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-default-groups --no-install-project
COPY README.md LICENSE ./
COPY rtserver rtserver
RUN uv sync --locked --no-default-groups --no-editable

FROM build AS build-demo
RUN uv sync --locked --no-default-groups --no-editable --extra demo

FROM python:3.12-slim-bookworm AS base
RUN useradd --uid 10001 --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin rtserver
ENV PATH=/opt/rtserver/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RTSERVER_HOST=0.0.0.0 \
    RTSERVER_PORT=8080
EXPOSE 8080
STOPSIGNAL SIGTERM
# Live, not ready: a chain that stands still is no reason to restart the server that says so.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['RTSERVER_PORT'] + '/health/live', timeout=2)"]
ENTRYPOINT ["rtserver"]

FROM base AS demo
# anvil and the Uniswap contracts are installed at the first start: keep them in a volume.
ENV RTSERVER_CACHE_DIR=/var/cache/rtserver \
    npm_config_cache=/var/cache/rtserver/npm \
    HOME=/tmp
RUN install --directory --owner=rtserver --group=rtserver /var/cache/rtserver
VOLUME /var/cache/rtserver
COPY --from=build-demo /opt/rtserver /opt/rtserver
USER 10001
CMD ["demo", "--host", "0.0.0.0"]

FROM base AS server
# What is kept over restarts. There is no home to keep it in; without this folder the server would do without.
ENV XDG_STATE_HOME=/var/lib
RUN install --directory --owner=rtserver --group=rtserver --mode=0700 /var/lib/rtserver
VOLUME /var/lib/rtserver
COPY --from=build /opt/rtserver /opt/rtserver
USER 10001
CMD ["serve"]
