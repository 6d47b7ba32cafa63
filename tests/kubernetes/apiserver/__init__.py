"""A Kubernetes API of its own, for tests: it keeps objects and runs pods as local processes.

Clients are the real ones (kubernetes_asyncio, kopf, kr8s), over plain HTTP with a kubeconfig. What
it is not: there is no image, no cgroup, no volume mount, no network policy and no second node.
"""
