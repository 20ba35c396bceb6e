"""Enforces NetworkPolicies in the lab: pods, namespaces and policies become one nftables table, replaced whole when it changes.

    lab/policy.py KUBECONFIG         run until ended, in the network namespace of the lab

Rules (the API's own): a pod that some policy selects for a direction is closed in that direction but for what policies open;
answers of open connections pass; the node reaches every pod, as probes need it. Covered are pod and namespace selectors,
ipBlock with except, numeric and named ports with endPort. It proves that policies select what they mean; it does not prove
how any provider's network plugin behaves.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64decode
from pathlib import Path
from typing import Any

TABLE = "greentic_policy"
EVERY_SECONDS = 0.5
Object = dict[str, Any]


def matches(selector: Object | None, labels: dict[str, str]) -> bool:
    """Whether a label selector takes an object; an empty one takes everything, none takes nothing."""
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or []:
        value, wanted = labels.get(term["key"]), term.get("values") or []
        good = {
            "In": value in wanted,
            "NotIn": value not in wanted,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[term["operator"]]
        if not good:
            return False
    return True


def ruleset(pods: list[Object], namespaces: list[Object], policies: list[Object]) -> str:
    """The nftables table of these objects."""
    labels_of = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in namespaces}
    live = [
        p
        for p in pods
        if p.get("status", {}).get("podIP")
        and not p["spec"].get("hostNetwork")
        and p["status"].get("phase") in ("Pending", "Running")
    ]
    egress, ingress, chains = [], [], []
    for pod in sorted(live, key=lambda p: p["status"]["podIP"]):
        address, name = pod["status"]["podIP"], pod["metadata"]["uid"].replace("-", "")
        own = [
            p for p in policies
            if p["metadata"]["namespace"] == pod["metadata"]["namespace"] and matches(p["spec"].get("podSelector", {}), pod["metadata"].get("labels") or {})
        ]  # fmt: skip
        for direction, verdicts, far, key in (("Egress", egress, "daddr", "to"), ("Ingress", ingress, "saddr", "from")):
            closing = [p for p in own if direction in _types(p)]
            if not closing:
                continue
            chain = f"{direction[0].lower()}_{name}"
            verdicts.append(f"{address} : jump {chain}")
            lines = []
            for policy in closing:
                for rule in policy["spec"].get(direction.lower()) or []:
                    lines += _rule(
                        rule,
                        key,
                        far,
                        policy["metadata"]["namespace"],
                        live,
                        labels_of,
                        pod if direction == "Ingress" else None,
                    )
            chains.append(
                f"  chain {chain} {{\n" + "".join(f"    {line} return\n" for line in lines) + "    counter drop\n  }"
            )
    jumps = ["    ct state established,related accept"]
    if egress:
        jumps.append(f"    ip saddr vmap {{ {', '.join(egress)} }}")
    if ingress:
        jumps.append(f"    ip daddr vmap {{ {', '.join(ingress)} }}")
    body = "\n".join(jumps)
    hooks = "\n".join(
        f"  chain {h} {{\n    type filter hook {h} priority filter; policy accept;\n{body}\n  }}"
        for h in ("forward", "input")
    )
    return f"table ip {TABLE} {{\n" + "\n".join(chains) + f"\n{hooks}\n}}\n"


def _types(policy: Object) -> list[str]:
    told = policy["spec"].get("policyTypes")
    return told if told is not None else ["Ingress", *(["Egress"] if policy["spec"].get("egress") else [])]


def _rule(
    rule: Object,
    key: str,
    far: str,
    namespace: str,
    pods: list[Object],
    labels_of: dict[str, dict[str, str]],
    here: Object | None,
) -> list[str]:
    peers = [""] if not rule.get(key) else []
    targets: list[Object] = []
    for peer in rule.get(key) or []:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            if ipaddress.ip_network(block["cidr"], strict=False).version != 4:
                continue
            but = [e for e in block.get("except") or [] if ":" not in e]
            peers.append(f"ip {far} {block['cidr']}" + (f" ip {far} != {{ {', '.join(but)} }}" if but else ""))
            continue
        spaces = (
            {n for n, labels in labels_of.items() if matches(peer["namespaceSelector"], labels)}
            if "namespaceSelector" in peer
            else {namespace}
        )
        chosen = [
            p
            for p in pods
            if p["metadata"]["namespace"] in spaces
            and matches(peer.get("podSelector", {}), p["metadata"].get("labels") or {})
        ]
        targets += chosen
        if chosen:
            peers.append(f"ip {far} {{ {', '.join(sorted({p['status']['podIP'] for p in chosen}))} }}")
    ports = _ports(rule.get("ports") or [], [here] if here else targets)
    return [f"{peer} {port}".strip() for peer in peers for port in ports]


def _ports(told: list[Object], pods: list[Object]) -> list[str]:
    if not told:
        return [""]
    out = []
    for entry in told:
        protocol, port = entry.get("protocol", "TCP").lower(), entry.get("port")
        if port is None:
            out.append(f"meta l4proto {protocol}")
        elif isinstance(port, int):
            out.append(f"{protocol} dport {port}" + (f"-{entry['endPort']}" if "endPort" in entry else ""))
        else:
            numbers = {
                q["containerPort"]
                for p in pods
                for c in p["spec"]["containers"]
                for q in c.get("ports") or []
                if q.get("name") == port
            }
            out += [f"{protocol} dport {n}" for n in sorted(numbers)]
    return out


class Client:
    """Reads lists with the certificate of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = cluster["server"]
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(cadata=b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as certificate, tempfile.NamedTemporaryFile() as key:
            Path(certificate.name).write_bytes(b64decode(user["client-certificate-data"]))
            Path(key.name).write_bytes(b64decode(user["client-key-data"]))
            self._context.load_cert_chain(certificate.name, key.name)

    def items(self, path: str) -> list[Object]:
        with urllib.request.urlopen(self._server + path, context=self._context, timeout=10) as answer:
            return json.load(answer)["items"]  # type: ignore[no-any-return]


def main() -> None:
    client, before = Client(Path(sys.argv[1])), ""
    while True:
        try:
            rules = ruleset(
                client.items("/api/v1/pods"),
                client.items("/api/v1/namespaces"),
                client.items("/apis/networking.k8s.io/v1/networkpolicies"),
            )
            if rules != before:
                script = f"table ip {TABLE}\ndelete table ip {TABLE}\n{rules}"
                done = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
                if done.returncode:
                    print(f"nft: {done.stderr}\n{script}", file=sys.stderr, flush=True)
                else:
                    before = rules
        except OSError as error:
            print(f"the API server does not answer: {error}", file=sys.stderr, flush=True)
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    main()
