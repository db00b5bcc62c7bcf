# The image of the roles node and controller.
#
#     docker build -t ghcr.io/csi-local-path/csi-local-path:0.1.0 .
#
# It runs as any user; the node's container must be root and privileged, for it mounts.

ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS build
ARG UV=0.13.9
# Only where a proxy stands between here and PyPI: a bundle with its authority.
ARG SSL_CERT_FILE
ARG PIP_CERT
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && python3 -m venv /uv \
    && /uv/bin/pip install --no-cache-dir "uv==$UV"
ENV UV_PYTHON=/usr/bin/python3 UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/csi-local-path \
    UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /src
# What changes seldom first: a change of our code alone installs nothing else anew.
COPY pyproject.toml uv.lock ./
RUN /uv/bin/uv sync --frozen --no-dev --all-extras --no-install-project
COPY README.md LICENSE CHANGELOG.md ./
COPY proto proto
COPY csi csi
COPY provisioner provisioner
RUN /uv/bin/uv sync --frozen --no-dev --all-extras --no-editable

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="csi-local-path" \
      org.opencontainers.image.description="A CSI driver whose volumes are directories on the node's own disk" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
# mkfs and the tools that let a filesystem grow; no compiler, no pip.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 e2fsprogs xfsprogs btrfs-progs \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=build /opt/csi-local-path /opt/csi-local-path
# Bytecode is compiled already, and the root filesystem is read-only.
ENV PATH=/opt/csi-local-path/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["csi-local-path"]
CMD ["--help"]
