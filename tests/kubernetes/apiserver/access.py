"""Who may do what: tokens are service accounts, and the chart's Roles decide."""

from __future__ import annotations

from dataclasses import dataclass

from tests.kubernetes.apiserver.kinds import ROLE, ROLE_BINDING, Kind
from tests.kubernetes.apiserver.store import ApiError, Store

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, in the words of RBAC."""

    verb: str
    kind: Kind
    namespace: str
    subresource: str = ""

    @property
    def resource(self) -> str:
        return f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural


class Access:
    """Checks requests, and remembers those that were refused."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.refused: list[str] = []

    def check(self, token: str, request: Request) -> None:
        """Raise 401 or 403 unless the token's service account may do this.

        A token is ``admin`` or ``<namespace>:<service account>``.
        """
        if token == ADMIN:
            return
        namespace, _, account = token.partition(":")
        if not account:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        if not any(
            self._allows(role, request) for role in self._roles(namespace, account, request)
        ):
            text = (
                f'User "system:serviceaccount:{token}" cannot {request.verb} resource '
                f'"{request.resource}" in API group "{request.kind.group}" in the namespace '
                f'"{request.namespace}"'
            )
            self.refused.append(text)
            raise ApiError(403, "Forbidden", text)

    def _roles(self, namespace: str, account: str, request: Request) -> list[str]:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        return [
            binding["roleRef"]["name"]
            for binding in self._store.list(ROLE_BINDING, request.namespace or "-")
            for found in binding.get("subjects") or []
            if {"namespace": namespace, **found} == subject
        ]

    def _allows(self, role: str, request: Request) -> bool:
        found = self._store.find(ROLE, request.namespace, role) or {}
        return any(
            request.kind.group in rule["apiGroups"]
            and request.resource in rule["resources"]
            and request.verb in rule["verbs"]
            for rule in found.get("rules") or []
        )
