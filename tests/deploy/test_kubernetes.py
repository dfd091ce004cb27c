"""The Kubernetes manifests: rendered by kustomize, valid by the schemas, and true of rtserver as it is."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from rtserver.config import load_settings
from rtserver.edge.health import Health
from rtserver.obs.metrics import Metrics

from .environment import ROOT, known_variables
from .manifests import FOLDER, Manifests, rendered

OVERLAYS = ("overlays/production", "overlays/trial")
# The oldest that still gets fixes somewhere, and the newest there is a schema for.
VERSIONS = ("1.31", "1.37")
# Described by the Prometheus operator, not by Kubernetes.
FOREIGN = ("ServiceMonitor", "PrometheusRule")
# All of a process' shutdown.
SHUTDOWN_S = 5


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return rendered(request.param)


def test_each_is_valid(manifests: Manifests) -> None:
    for version in VERSIONS:
        for one in manifests.documents:
            if one["kind"] not in FOREIGN:
                kubernetes_validate.validate(one, version, strict=True)


def test_the_schemas_see_what_is_wrong() -> None:
    one: dict[str, Any] = yaml.safe_load((FOLDER / "base" / "engine.yaml").read_text())
    kubernetes_validate.validate(one, VERSIONS[0], strict=True)
    one["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, VERSIONS[0], strict=True)


def test_each_file_is_used() -> None:
    used = set()
    for file in FOLDER.rglob("kustomization.yaml"):
        text = file.read_text()
        used |= {file.parent / name for name in re.findall(r"[\w-]+\.(?:yaml|env)", text)}
    rest = {file for file in FOLDER.rglob("*.*") if file.name != "kustomization.yaml"} - used
    assert rest == set()


def test_each_variable_is_a_setting_and_each_setting_is_right(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, _, container in manifests.ours():
        with monkeypatch.context() as shell:
            for variable, value in manifests.environment(container).items():
                assert not variable.startswith("RTSERVER_") or variable in known_variables(), f"{name}: {variable}"
                shell.setenv(variable, value)
            command, option, role = container["args"]
            assert (command, option) == ("serve", "--role")
            settings = load_settings(None, {"role": role})
        assert name == f"rtserver-{role}"
        assert settings.host == "0.0.0.0"
        assert settings.name is not None
        listening = {settings.port, settings.ops.port} - {None}
        assert {port["containerPort"] for port in container["ports"]} == listening
        assert settings.store.url is not None, "nothing is written to the container's disk"


def test_probes_ask_what_is_answered(manifests: Manifests) -> None:
    routes = {route.path for route in Health(None, {}, Metrics()).routes()}  # type: ignore[arg-type] # never asked
    for _, _, container in manifests.ours():
        ports = {port["name"] for port in container["ports"]}
        paths = {}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] in ports
            assert asked["path"] in routes
            paths[probe] = asked["path"]
        assert paths["livenessProbe"] == "/health/live", "a chain that stands still is no reason to start anew"
        assert paths["readinessProbe"] == "/health/ready"


def test_there_is_time_to_say_bye(manifests: Manifests) -> None:
    for _, pod, container in manifests.ours():
        waits = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert waits[0] == "sleep"
        assert pod["terminationGracePeriodSeconds"] >= int(waits[1]) + 2 * SHUTDOWN_S


def test_pods_have_no_rights_and_no_variables_that_nobody_meant(manifests: Manifests) -> None:
    for name, pod, container in manifests.ours():
        assert pod["securityContext"]["runAsNonRoot"] is True
        user = re.search(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert user is not None
        assert pod["securityContext"]["runAsUser"] == int(user[1])
        inner = container["securityContext"]
        assert inner["allowPrivilegeEscalation"] is False
        assert inner["readOnlyRootFilesystem"] is True
        assert inner["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False
        # A Service by the name of rtserver would make RTSERVER_PORT=tcp://….
        assert pod["enableServiceLinks"] is False, name
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp"}


def test_selectors_select_something(manifests: Manifests) -> None:
    pods = manifests.pod_labels()

    def selects(labels: dict[str, str]) -> bool:
        return bool(labels) and any(labels.items() <= pod.items() for pod in pods)

    for one in manifests.of_kind("Deployment"):
        labels = one["spec"]["selector"]["matchLabels"]
        assert sum(labels.items() <= pod.items() for pod in pods) == 1, "no other deployment's pods"
        for spread in one["spec"]["template"]["spec"].get("topologySpreadConstraints", ()):
            assert spread["labelSelector"]["matchLabels"].items() <= pods_of(one).items()
    for one in manifests.of_kind("Service"):
        assert selects(one["spec"]["selector"])
    for one in manifests.of_kind("PodDisruptionBudget"):
        assert selects(one["spec"]["selector"]["matchLabels"])
    for one in manifests.of_kind("NetworkPolicy"):
        assert selects(one["spec"]["podSelector"]["matchLabels"])


def pods_of(deployment: dict[str, Any]) -> dict[str, str]:
    return dict(deployment["spec"]["template"]["metadata"]["labels"])


def test_services_lead_to_ports_that_are_open(manifests: Manifests) -> None:
    for service in manifests.of_kind("Service"):
        labels = service["spec"]["selector"]
        for deployment in manifests.of_kind("Deployment"):
            if labels.items() <= pods_of(deployment).items():
                (container,) = deployment["spec"]["template"]["spec"]["containers"]
                names = {port.get("name", port["containerPort"]) for port in container["ports"]}
                assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for ingress in manifests.of_kind("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                ports = manifests.named("Service", backend["name"])["spec"]["ports"]
                assert backend["port"]["name"] in {port["name"] for port in ports}
    for policy in manifests.of_kind("NetworkPolicy"):
        names = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert names <= {"http", "ops"}


def exported() -> set[str]:
    return set(re.findall(r"^# TYPE (\w+) ", Metrics().render().decode(), re.MULTILINE))


def test_the_autoscaler_goes_by_a_metric_that_there_is() -> None:
    (scaler,) = rendered("overlays/production").of_kind("HorizontalPodAutoscaler")
    kinds = {one["type"]: one for one in scaler["spec"]["metrics"]}
    metric = kinds["Pods"]["pods"]["metric"]["name"]
    assert metric in exported()
    assert kinds["Resource"]["resource"]["name"] == "cpu", "where no adapter tells connections"
    assert scaler["spec"]["minReplicas"] == 3, "the overlay's"
    target = scaler["spec"]["scaleTargetRef"]
    assert "replicas" not in rendered("base").named(target["kind"], target["name"])["spec"], "the autoscaler's business"
    adapter = yaml.safe_load((FOLDER / "components" / "monitoring" / "adapter-values.yaml").read_text())
    (rule,) = adapter["rules"]["custom"]
    assert rule["name"]["as"] == metric
    assert rule["seriesQuery"].startswith(metric + "{")
    assert rendered("overlays/trial").of_kind("HorizontalPodAutoscaler") == []
    assert rendered("overlays/trial").named("Deployment", "rtserver-gateway")["spec"]["replicas"] == 2


def test_metrics_are_asked_for_where_they_are_and_alerts_are_about_some() -> None:
    production = rendered("overlays/production")
    (monitor,) = production.of_kind("ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (service,) = [one for one in production.of_kind("Service") if wanted.items() <= one["metadata"]["labels"].items()]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"
    (rules,) = production.of_kind("PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert alerts
    for alert in alerts:
        names = re.findall(r"\brtserver_\w+", alert["expr"])
        assert names
        assert set(names) <= exported(), alert["alert"]


def test_the_image_and_the_namespace_are_the_overlays() -> None:
    for overlay, image in (("overlays/production", "registry.example/rtserver:"), ("overlays/trial", "rtserver:")):
        manifests = rendered(overlay)
        assert all(container["image"].startswith(image) for _, _, container in manifests.ours())
        spaces = {one["metadata"].get("namespace") for one in manifests.documents if one["kind"] != "Namespace"}
        assert len(spaces) == 1


def test_the_readme_has_the_secret_with_all_its_keys() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    given = set(re.findall(r"--from-(?:literal|file)=([\w-]+)=", text))
    asked = {
        one["valueFrom"]["secretKeyRef"]["key"]
        for _, _, container in rendered("base").ours()
        for one in container["env"]
        if "secretKeyRef" in one.get("valueFrom", {})
    }
    assert given == asked
