"""What NetworkPolicies let through, judged as Kubernetes describes it: enough for this chart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A pod (labels), or something outside the cluster (no labels), and its named ports."""

    name: str
    labels: dict[str, str] | None = None
    ports: dict[str, int] = field(default_factory=dict)


OUTSIDE = Peer("outside")


def may_connect(policies: Iterable[Manifest], source: Peer, target: Peer, port: int) -> bool:
    """Whether a TCP connection is let out at one end and in at the other."""
    policies = [policy["spec"] for policy in policies]
    out = _passes(policies, "Egress", source, target, (port, target))
    return out and _passes(policies, "Ingress", target, source, (port, target))


def isolated(policies: Iterable[Manifest], pod: Peer) -> set[str]:
    """The directions in which a pod may do only what a policy names."""
    found = [p["spec"] for p in policies if selects(p["spec"]["podSelector"], pod)]
    return {direction for spec in found for direction in spec["policyTypes"]}


def selects(selector: Manifest, pod: Peer) -> bool:
    """Whether a label selector means a pod."""
    if pod.labels is None:
        return False
    wanted = (selector.get("matchLabels") or {}).items()
    return wanted <= pod.labels.items() and all(
        _expressed(expression, pod.labels) for expression in selector.get("matchExpressions") or []
    )


def _expressed(expression: Manifest, labels: dict[str, str]) -> bool:
    assert expression["operator"] == "In"
    return labels.get(expression["key"]) in expression["values"]


def _passes(
    specs: list[Manifest], direction: str, pod: Peer, other: Peer, port: tuple[int, Peer]
) -> bool:
    mine = [s for s in specs if direction in s["policyTypes"] and selects(s["podSelector"], pod)]
    if not mine:
        return True
    key, end = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    return any(
        _peer_is_meant(rule.get(end), other) and _port_is_meant(rule.get("ports"), port)
        for spec in mine
        for rule in spec.get(key) or []
    )


def _peer_is_meant(peers: list[Manifest] | None, other: Peer) -> bool:
    return peers is None or any(selects(peer["podSelector"], other) for peer in peers)


def _port_is_meant(ports: list[Manifest] | None, asked: tuple[int, Peer]) -> bool:
    number, target = asked
    if ports is None:
        return True
    for port in ports:
        if port.get("protocol", "TCP") != "TCP":
            continue
        first = target.ports.get(port["port"], 0) if isinstance(port["port"], str) else port["port"]
        if first <= number <= port.get("endPort", first):
            return True
    return False
