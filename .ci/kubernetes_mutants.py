"""Breaks of the rendered objects, each of which a check must notice."""

from dataclasses import dataclass

from kubernetes_objects import named


@dataclass
class Mutant:
    """Sets the value at `path` of an object of a rendering; `None` takes it away."""

    kind: str
    path: str
    value: object
    noticed: str
    name: str = "fanfare"
    of: str = "demo"


POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
MUTANTS = [
    # The schemas.
    Mutant("Deployment", f"{POD}.terminationGracePeriod", 40, "terminationGracePeriod"),
    Mutant("Deployment", f"{CONTAINER}.ports.0.containerPort", "50051", "is not of type"),
    Mutant("HorizontalPodAutoscaler", "apiVersion", "autoscaling/v2beta2", "there is no schema"),
    Mutant("NetworkPolicy", "spec.ingress.0.port", [], "'port' was unexpected"),
    Mutant("ServiceMonitor", "spec.endpoints.0.intervall", "15s", "'intervall' was unexpected",
           of="chart-production"),
    # Ports, labels, selectors.
    Mutant("Service", "spec.selector.app.kubernetes.io/name", "fanfar", "selects 0 deployments"),
    Mutant("Service", "spec.ports.0.targetPort", "http", "has no port http"),
    Mutant("Service", "spec.ports.0.port", 50052, "port 50052 is not grpc's"),
    Mutant("Deployment", f"{POD}.topologySpreadConstraints.1.labelSelector.matchLabels.a", "b",
           "does not select its own pods"),
    Mutant("Deployment", "spec.selector.matchLabels.app.kubernetes.io/component", None,
           "also selects those of Deployment demo-tools"),
    Mutant("PodDisruptionBudget", "spec.selector.matchLabels.a", "b", "does not select one"),
    Mutant("HorizontalPodAutoscaler", "spec.scaleTargetRef.name", "fanfair",
           "there is no Deployment"),
    Mutant("Deployment", "spec.replicas", 2, "replicas are HorizontalPodAutoscaler fanfare's"),
    Mutant("Deployment", f"{CONTAINER}.resources.requests.cpu", None, "requests no CPU"),
    Mutant("NetworkPolicy", "spec.podSelector.matchLabels.a", "b",
           "does not select one deployment"),
    Mutant("NetworkPolicy", "spec.ingress.1.ports.0.port", "admin", "of its rules differ"),
    Mutant("Deployment", "spec.template.metadata.labels.fanfare-tools", None,
           "does not let out to Deployment demo-tools", name="demo-tools"),
    Mutant("ServiceMonitor", "spec.endpoints.0.port", "grpc",
           "scrapes 2 services", of="chart-production"),
    # The pod.
    Mutant("Deployment", f"{POD}.serviceAccountName", "default",
           "its ServiceAccount is not there"),
    Mutant("ServiceAccount", "automountServiceAccountToken", True, "mounts a token"),
    Mutant("Deployment", f"{CONTAINER}.env.1.name", "POD", "$(POD_NAME) is not set"),
    Mutant("Deployment", f"{CONTAINER}.readinessProbe.grpc.port", 50052,
           "port 50052 is not grpc's"),
    Mutant("Deployment", f"{CONTAINER}.livenessProbe.httpGet.port", "admin", "no port admin"),
    Mutant("Deployment", f"{CONTAINER}.livenessProbe", {"grpc": {"port": 50051}},
           "health fails in a drain"),
    Mutant("Deployment", f"{POD}.volumes.0.configMap.name", "fanfare",
           "there is no ConfigMap fanfare"),
    Mutant("Deployment", f"{POD}.securityContext.fsGroup", None, "no fsGroup", of="production"),
    Mutant("Deployment", f"{CONTAINER}.volumeMounts.0.mountPath", "/etc/fanfare/tools",
           "nothing is mounted at /etc/fanfare/tls", of="production"),
    Mutant("Deployment", f"{CONTAINER}.volumeMounts.0.subPath", "fanfare.toml",
           "no change gets to /etc/fanfare"),
    Mutant("Deployment", f"{CONTAINER}.args.2", "/etc/fanfare.toml", "nothing is mounted at"),
    # The program.
    Mutant("Deployment", f"{POD}.terminationGracePeriodSeconds", 33, "is 33, needed 33.5"),
    Mutant("Deployment", f"{POD}.terminationGracePeriodSeconds", 28, "is 28, needed 28.5",
           name="demo-tools"),
    Mutant("Deployment", f"{CONTAINER}.ports.1.containerPort", 9465, "server.admin_listen is"),
    Mutant("Deployment", f"{CONTAINER}.args.2", "0.0.0.0:50052", "listens on 0.0.0.0:50052",
           name="demo-tools"),
    Mutant("HorizontalPodAutoscaler", "spec.metrics.1.pods.target.averageValue", "10000",
           "not below max_in_flight_calls"),
    Mutant("Service", "metadata.name", "demo", "there is no Service for http://demo-tools",
           name="demo-tools-headless"),
    Mutant("NetworkPolicy", "spec.egress.2.ports.0.port", 4318, "does not let out to https://",
           of="production"),
]


def broken(objects: list[dict], mutant: Mutant) -> None:
    place = named(objects, mutant.kind, mutant.name)
    *path, last = steps(mutant.path)
    for step in path:
        place = place[int(step) if isinstance(place, list) else step]
    if mutant.value is None:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = mutant.value
    else:
        place[last] = mutant.value


def steps(path: str) -> list[str]:
    """Parted by dots, but for those in `app.kubernetes.io/…`."""
    placeholder = path.replace("app.kubernetes.io/", "app|kubernetes|io/")
    return [s.replace("|", ".") for s in placeholder.split(".")]
