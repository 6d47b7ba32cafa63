# syntax=docker/dockerfile:1
# One image for flow, Dask scheduler, Dask worker, Prefect server and worker and Dask operator; with
# `--build-arg LOCK=samples` it holds the stand-in archives, too. Nothing is fetched at run time; the
# root file system may be read-only, with something writable at /tmp. tests/kubernetes/test_image.py
# runs the same steps without an engine.

ARG PYTHON=python:3.11-slim
# the same with binutils, which take what only debuggers read out of libraries
ARG BUILD=python:3.11
ARG LOCK=image

FROM ${BUILD} AS build
ARG LOCK
WORKDIR /opt/macroscope
COPY requirements/image.lock requirements/samples.lock requirements/build.lock requirements/
COPY k8s/image/install.sh k8s/image/slim.sh k8s/image/weed.sh k8s/image/
RUN sh k8s/image/install.sh /opt/venv && sh k8s/image/slim.sh /opt/venv
COPY pyproject.toml prefect.yaml prefect.toml README.md LICENSE* ./
COPY macroscope macroscope
COPY flows flows
COPY tasks tasks
COPY lib lib
COPY emulators emulators
COPY schemas schemas
COPY config config
COPY k8s/image.sh k8s/job-template.json k8s/
COPY k8s/image/project.sh k8s/image/pack.py k8s/image/
RUN sh k8s/image/project.sh /opt/venv && rm -rf k8s/image requirements

FROM ${PYTHON}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="macroscope" \
      org.opencontainers.image.description="Electron-microscopy volumes from five public archives into one store" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# Nothing in a pod installs packages. getpass.getuser() wants a passwd entry for the user.
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip \
           /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/2to3* \
    && groupadd --gid 1001 macroscope \
    && useradd --uid 1001 --gid 1001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin macroscope
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/macroscope /opt/macroscope
# A run outlives a Prefect server that is away: seven tries make four minutes, and a Dask worker that
# starts meanwhile does not fail because it cannot ask the server for its version. A server whose database
# is away answers 500 or 504, which the client would otherwise not ask again.
# Two malloc arenas, not one for each of many threads: memory stays flat as volumes grow.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=macroscope \
    PREFECT_HOME=/tmp/prefect \
    DASK_TEMPORARY_DIRECTORY=/tmp/dask \
    NUMBA_CACHE_DIR=/tmp/numba \
    MALLOC_ARENA_MAX=2 \
    MACROSCOPE_HOME=/opt/macroscope \
    PREFECT_CLIENT_MAX_RETRIES=7 \
    PREFECT_CLIENT_RETRY_EXTRA_CODES=500,504 \
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED=false \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=120 \
    DO_NOT_TRACK=1
WORKDIR /opt/macroscope
USER 1001:1001
CMD ["macroscope", "--help"]
