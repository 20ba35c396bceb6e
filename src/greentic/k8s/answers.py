"""What the operator answered about the cluster: one JSON object, read into a value (formats: cluster 1). Pure.

Rules:
1. A key that is not in the table is refused before any value is looked at. `null` and the empty text mean unset.
2. Values are not trimmed; the entries of lists are. Lists are arrays of texts, or one text with commas.
3. The first keys are those of the existing deployer; the others are ours, and all are optional. Deep ones, the shape of pods and their
   exposure, are read in `shape/`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, NamedTuple, cast

from greentic import __version__
from greentic.ground.digits import whole_number
from greentic.ground.documents import Json, JsonObject
from greentic.k8s.names import namespace_of
from greentic.shape.excepted import is_excepted
from greentic.shape.exposure import Exposure, read_exposure
from greentic.shape.pod_settings import PodSettings, check_fit, read_settings
from greentic.shape.pod_shape import Shape, read_operator_shape, read_shape
from greentic.shape.syntax import invalid, namespace_name, object_name, registries

OWN_IMAGE = f"greentic.local/worker:{__version__}"
"""What is rendered where no image is answered: this version under a name that no registry has. It is shown and never applied."""
DEFAULT_DRAIN_SECONDS = 5

PullPolicy = Literal["Always", "IfNotPresent", "Never"]
ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]

KEYS: dict[str, str] = {
    "kubeconfig_context": "the kubeconfig context to use (default: the current one, else the pod's own account)",
    "namespace": "the namespace (default: derived from the environment's id)",
    "runtime_image": "the worker's image, with its digest; nothing is applied without it",
    "router_replicas": "how many routers, at least 2",
    "tunnel": "off or none: this worker opens no tunnel",
    "oci_insecure_registries": "registries that pods ask over plain http",
    "image_pull_policy": "Always, IfNotPresent or Never (default: the cluster's own rule)",
    "image_pull_secrets": "names of Secrets with registry credentials, in the namespace",
    "service_type": "of the router: ClusterIP (default), NodePort or LoadBalancer",
    "drain_delay_seconds": "how long a stopping pod keeps serving, until nobody sends to it any more (default: 5)",
    "egress": "sources (default): pods reach what bundles come from, and https; open: everything",
    "egress_cidrs": "with `sources`: only these networks instead of any address",
    "egress_ports": "with `sources`: more TCP ports that pods may connect to",
    "dns_cidrs": "more networks where DNS servers are, such as the address of Service kube-dns behind NodeLocal DNSCache",
    "ingress_namespaces": "only pods of these namespaces reach the router",
    "ingress_cidrs": "only these networks reach the router",
    "metrics_namespaces": "pods of these namespaces scrape /metrics of every pod, on a port of its own",
    "registry_secret": "a Secret of type kubernetes.io/dockerconfigjson, for pulling bundles",
    "secrets_secret": "a Secret whose keys components read as their secrets",
    "ingress_tokens_secret": "a Secret with ingress-tokens.json: callers need one of its bearer tokens",
    "redis_secret": "a Secret with the key `url`: the Redis where pods share conversations and state",
    "environment_registry": "oci://registry/repository where the document goes when it is too large for a ConfigMap",
    "environment_in": "auto (default): a ConfigMap while the document fits; registry: always the registry, by digest",
    "trust_anchor_config_map": "a ConfigMap with trust-anchor.json: the keys that must have sealed the environment",
    "router": "the shape of routers: resources, replicas or autoscale, placement, account, labels, env (docs/kubernetes.md)",
    "worker": "the shape of the workers of revisions, likewise",
    "operator": "the shape of the operator's pod, likewise, without replicas and account; it is rendered by `operator render`",
    "uid": "65532 (default), or none: the namespace chooses, as OpenShift does",
    "size_limit": "how large the writable volumes may get: {home, tmp}",
    "extra_ca": "a ConfigMap with ca.crt: certificate authorities beside the image's",
    "component_egress": "where components may send requests: public (default), none, unrestricted, or hosts",
    "component_limits": "of components: {seconds, memory_mb, total_mb}",
    "pack_signatures": "ignore, warn (default) or require signatures of packs",
    "pack_signers": "the keys that may sign packs",
    "expose": "none (default), ingress or gateway: how routers are reached from outside",
    "hosts": "the names that callers use",
    "ingress_class": "the class of the Ingress",
    "tls_secret": "a Secret of type kubernetes.io/tls for the hosts; with an issuer, where it keeps the certificate",
    "issuer": "the Issuer of cert-manager that makes the certificate",
    "cluster_issuer": "the ClusterIssuer of cert-manager that makes it",
    "gateway": "NAMESPACE/NAME of the Gateway that routes attach to",
}
"""Every key, with its meaning for people."""

_IMAGE = re.compile(r"[a-z0-9.\-_/:@]+\Z")
_REPOSITORY = re.compile(r"oci://[A-Za-z0-9.-]+(?::\d{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+\Z")


class Answers(NamedTuple):
    """The answers with their defaults."""

    namespace: str
    router: Shape
    worker: Shape
    operator: Shape
    kubeconfig_context: str | None = None
    runtime_image: str = OWN_IMAGE
    image_answered: bool = False
    oci_insecure_registries: tuple[str, ...] = ()
    image_pull_policy: PullPolicy | None = None
    image_pull_secrets: tuple[str, ...] = ()
    service_type: ServiceType = "ClusterIP"
    drain_delay_seconds: int = DEFAULT_DRAIN_SECONDS
    egress_open: bool = False
    egress_cidrs: tuple[str, ...] = ()
    egress_ports: tuple[int, ...] = ()
    dns_cidrs: tuple[str, ...] = ()
    ingress_namespaces: tuple[str, ...] = ()
    ingress_cidrs: tuple[str, ...] = ()
    metrics_namespaces: tuple[str, ...] = ()
    registry_secret: str | None = None
    secrets_secret: str | None = None
    ingress_tokens_secret: str | None = None
    redis_secret: str | None = None
    trust_anchor_config_map: str | None = None
    environment_registry: str | None = None
    environment_always_there: bool = False
    """Whether the document lies in the registry even where it would fit."""
    settings: PodSettings = PodSettings()
    exposure: Exposure | None = None

    def warnings(self) -> list[str]:
        """What is accepted and may still surprise."""
        found = [*self.router.warnings("router"), *self.worker.warnings("worker"), *self.operator.warnings("operator")]
        found += self.settings.warnings()
        if not self.image_answered:
            found.insert(
                0, f"runtime_image is not answered: `{OWN_IMAGE}` is in no registry, is only shown and never applied"
            )
        elif "@sha256:" not in self.runtime_image:
            found.insert(
                0, f"runtime_image `{self.runtime_image}` names no digest: what a node pulls for it may change"
            )
        return found


def read_answers(raw: Json, env_id: str) -> Answers:
    """The answers. Raises `Conflict` that names the key, what was found and what is accepted."""
    given = _given(raw)
    namespace = _text(given, "namespace")
    if namespace is not None and namespace_name(namespace, "namespace").startswith("kube-"):
        raise invalid(f"namespace: `{namespace}` is the cluster's own, and the policies would close every pod in it")
    answered = _text(given, "runtime_image")
    image = answered or OWN_IMAGE
    if not _IMAGE.match(image):
        raise _invalid(f"runtime_image `{image}` contains invalid characters")
    _check_tunnel(_text(given, "tunnel"))
    router, worker, settings, exposure = _shaped(given)
    return Answers(
        namespace=namespace or namespace_of(env_id),
        kubeconfig_context=_text(given, "kubeconfig_context"),
        runtime_image=image,
        image_answered=answered is not None,
        router=router,
        worker=worker,
        operator=read_operator_shape(given.get("operator")),
        oci_insecure_registries=registries(_list(given, "oci_insecure_registries"), "oci_insecure_registries"),
        image_pull_policy=cast(
            "PullPolicy | None", _choice(given, "image_pull_policy", ("Always", "IfNotPresent", "Never"))
        ),
        image_pull_secrets=tuple(_name("image_pull_secrets", n) for n in _list(given, "image_pull_secrets")),
        service_type=cast(
            ServiceType, _choice(given, "service_type", ("ClusterIP", "NodePort", "LoadBalancer")) or "ClusterIP"
        ),
        drain_delay_seconds=_number(
            given.get("drain_delay_seconds", DEFAULT_DRAIN_SECONDS), "drain_delay_seconds", 0, 600
        ),
        egress_open=_choice(given, "egress", ("sources", "open")) == "open",
        egress_cidrs=_reachable(_networks(given, "egress_cidrs")),
        egress_ports=tuple(_number(p, "egress_ports", 1, 65535) for p in _list(given, "egress_ports")),
        dns_cidrs=_networks(given, "dns_cidrs"),
        ingress_namespaces=tuple(_name("ingress_namespaces", n) for n in _list(given, "ingress_namespaces")),
        ingress_cidrs=_networks(given, "ingress_cidrs"),
        metrics_namespaces=tuple(_name("metrics_namespaces", n) for n in _list(given, "metrics_namespaces")),
        registry_secret=_object_name(given, "registry_secret"),
        secrets_secret=_object_name(given, "secrets_secret"),
        ingress_tokens_secret=_object_name(given, "ingress_tokens_secret"),
        redis_secret=_object_name(given, "redis_secret"),
        trust_anchor_config_map=_object_name(given, "trust_anchor_config_map"),
        environment_registry=_repository(given),
        environment_always_there=_choice(given, "environment_in", ("auto", "registry")) == "registry",
        settings=settings,
        exposure=exposure,
    )


def _given(raw: Json) -> JsonObject:
    """What was answered (rule 1)."""
    if not isinstance(raw, dict):
        raise _invalid("answers must be a JSON object")
    for key in raw:
        if key not in KEYS:
            raise _invalid(f"unknown answer key `{key}`", f"known keys: {', '.join(KEYS)}")
    return {key: value for key, value in raw.items() if value is not None and value != ""}


def _shaped(given: JsonObject) -> tuple[Shape, Shape, PodSettings, Exposure | None]:
    """What is read in `shape/`: routers, workers, the settings of both, and the way in. Raises `Conflict` where they do not fit."""
    router = read_shape(given.get("router"), "router", least=2, replicas=_replicas(given.get("router_replicas")))
    worker = read_shape(given.get("worker"), "worker", least=1)
    egress = ",".join(_list(given, "component_egress")) or None
    settings = read_settings(given, _list(given, "pack_signers"), egress)
    exposure = read_exposure(given, lambda key: _list(given, key))
    check_fit(settings, router, "router")
    check_fit(settings, worker, "worker")
    _check_accounts(router, worker)
    by_gateway = exposure is not None and exposure.way == "gateway"
    if by_gateway and "ingress_namespaces" not in given and "ingress_cidrs" not in given:
        raise _invalid(
            "expose: gateway: the Gateway's pods reach workers, and nobody said where they run",
            "answer ingress_namespaces with the namespace of the pods of the Gateway, or ingress_cidrs",
        )
    return router, worker, settings, exposure


_invalid = invalid


def _check_accounts(router: Shape, worker: Shape) -> None:
    """Raise `Conflict` where one account is to have two forms."""
    one, other = router.account, worker.account
    if one and other and one.name == other.name and (one, router.makes_account) != (other, worker.makes_account):
        raise _invalid(f"worker.service_account: `{other.name}` is answered otherwise for the router")


def _text(given: JsonObject, key: str) -> str | None:
    value = given.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise _invalid(f"{key} must be a text")


def _repository(given: JsonObject) -> str | None:
    """Where large documents go: a repository, whose names are made of digests."""
    text = _text(given, "environment_registry")
    if text is None:
        if given.get("environment_in") == "registry":
            raise _invalid("environment_in `registry` needs environment_registry: where the document goes")
        return None
    if not _REPOSITORY.match(text):
        raise _invalid(f"environment_registry `{text}` is not oci://registry/repository, without tag and digest")
    return text


def _replicas(value: Json) -> int | None:
    if value is None:
        return None
    number = _number(value, "router_replicas", 0, 2**32 - 1)
    if number < 2:
        raise _invalid(f"router_replicas must be >= 2 (one may stop while the other serves), got {number}")
    return number


def _number(value: Json, key: str, least: int, most: int) -> int:
    text = value.removeprefix("+") if isinstance(value, str) else value
    if isinstance(text, str):
        text = whole_number(text, most)
    if isinstance(text, bool) or not isinstance(text, int) or not least <= text <= most:
        raise _invalid(f"{key} must be a whole number from {least} to {most}, got `{str(value)[:60]}`")
    return text


def _check_tunnel(value: str | None) -> None:
    if value == "cloudflared":
        raise _invalid(
            "tunnel `cloudflared`: this worker opens no tunnel",
            "answer off, and run cloudflared as a Deployment of its own that leads to Service gtc-router, port 8080",
        )
    if value not in (None, "off", "none"):
        raise _invalid(f"tunnel `{value}` is not valid; expected off or none")


def _reachable(cidrs: tuple[str, ...]) -> tuple[str, ...]:
    """Networks to open. Raises `Conflict` for one that no worker ever asks."""
    for cidr in cidrs:
        if is_excepted(ipaddress.ip_network(cidr)):
            raise _invalid(f"egress_cidrs: {cidr} is link-local or a metadata service, which no worker asks")
    return cidrs


def _choice(given: JsonObject, key: str, accepted: tuple[str, ...]) -> str | None:
    value = _text(given, key)
    if value is not None and value not in accepted:
        raise _invalid(f"{key} `{value}` is not valid; expected {', '.join(accepted)}")
    return value


def _list(given: JsonObject, key: str) -> tuple[str, ...]:
    value = given.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        entries: list[Json] = list(value.split(","))
    elif isinstance(value, list):
        entries = [str(v) if key == "egress_ports" and isinstance(v, int) else v for v in value]
    elif key == "egress_ports" and isinstance(value, int):
        entries = [str(value)]
    else:
        raise _invalid(f"{key} must be a list of texts, or one text with commas")
    if not all(isinstance(e, str) for e in entries):
        raise _invalid(f"the entries of {key} must be strings")
    return tuple(t for t in (cast(str, e).strip() for e in entries) if t)


def _networks(given: JsonObject, key: str) -> tuple[str, ...]:
    out = []
    for text in _list(given, key):
        try:
            out.append(str(ipaddress.ip_network(text, strict=False)))
        except ValueError:
            raise _invalid(f"{key}: `{text}` is no network such as 10.0.0.0/8") from None
    return tuple(out)


def _name(key: str, text: str) -> str:
    return object_name(text, key)


def _object_name(given: JsonObject, key: str) -> str | None:
    text = _text(given, key)
    return None if text is None else _name(key, text)
