"""What the image and the compose file say of where things are kept, against what the server does with it."""

import re
from pathlib import Path

from rtserver.store.opening import default_path

ROOT = Path(__file__).parents[2]


def server_stage() -> str:
    return (ROOT / "Dockerfile").read_text().partition("FROM base AS server\n")[2]


def test_the_image_has_a_volume_where_its_store_is() -> None:
    stage = server_stage()
    environment = dict(re.findall(r"ENV (\w+)=(\S+)", stage))
    (volume,) = re.findall(r"^VOLUME (\S+)$", stage, re.MULTILINE)
    path = default_path(environment)
    assert path is not None, "without a home"
    assert path.parent == Path(volume)
    made = re.search(r"^RUN install --directory --owner=rtserver .* (\S+)$", stage, re.MULTILINE)
    assert made is not None
    assert made[1] == volume, "a volume takes its owner from the image"
    assert stage.index("RUN install") < stage.index("VOLUME") < stage.index("USER 10001")


def test_compose_keeps_that_volume() -> None:
    compose = (ROOT / "compose.yaml").read_text()
    (volume,) = re.findall(r"^VOLUME (\S+)$", server_stage(), re.MULTILINE)
    (name,) = re.findall(rf"^      - (\w+):{volume}$", compose, re.MULTILINE)
    assert re.search(rf"^volumes:\n(?:  .*\n)*  {name}:$", compose, re.MULTILINE), "a named one outlives the container"
