"""The Kubernetes manifests as kustomize makes them, and what of them belongs together."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .environment import ROOT, image_environment

__all__ = ["FOLDER", "Manifests", "rendered"]

FOLDER = ROOT / "deploy" / "kubernetes"
# What the README has people put there.
_SECRET = {
    "chains": '[{"rpc": ["wss://node.example/KEY", "https://node.example/KEY"]}]',
    "redis-url": "rediss://:password@redis.example:6379/0",
    "store-url": "postgresql://rtserver:password@db.example/rtserver",
}


class Manifests:
    """The objects of one overlay."""

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self.documents = documents

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        return [one for one in self.documents if one["kind"] in kinds]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.of_kind(kind) if one["metadata"]["name"] == name]
        return found

    def ours(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield each deployment of rtserver: its name, its pods' specification and their one container."""
        for one in self.of_kind("Deployment"):
            if one["metadata"]["name"].startswith("rtserver-"):
                pod = one["spec"]["template"]["spec"]
                (container,) = pod["containers"]
                yield one["metadata"]["name"], pod, container

    def pod_labels(self) -> list[dict[str, str]]:
        return [one["spec"]["template"]["metadata"]["labels"] for one in self.of_kind("Deployment")]

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Return what a container's process finds, beginning with what the image sets.

        A reference to what is not there fails, but for the Secret that people make themselves.
        """
        found = image_environment()
        for source in container.get("envFrom", ()):
            found |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        for one in container.get("env", ()):
            if "value" in one:
                found[one["name"]] = one["value"]
            elif "fieldRef" in one["valueFrom"]:
                assert one["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
                found[one["name"]] = "rtserver-engine-5d9c7b9c5f-x2x4z"
            else:
                key = one["valueFrom"]["secretKeyRef"]
                found[one["name"]] = self._secret(key["name"])[key["key"]]
        return found

    def _secret(self, name: str) -> dict[str, str]:
        if name == "rtserver":
            return _SECRET
        data = self.named("Secret", name)["data"]
        assert data.keys() == _SECRET.keys()
        return {key: base64.b64decode(text).decode() for key, text in data.items()}


@cache
def rendered(folder: str) -> Manifests:
    """Return what kustomize makes of a folder: the kubectl of a wheel, and no cluster."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", str(FOLDER / folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return Manifests([one for one in yaml.safe_load_all(done.stdout) if one])
