# The slim image: the `highwater` command without torch and Ray, for schedules and for `helm test`. Built like worker.Dockerfile.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}

ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check uv==${UV_VERSION}
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv

COPY requirements-submit.lock /opt/highwater/
RUN uv pip install --no-cache --compile-bytecode --require-hashes -r /opt/highwater/requirements-submit.lock

RUN useradd --uid 1000 --create-home --shell /usr/sbin/nologin highwater

COPY pyproject.toml README.md LICENSE /opt/highwater/src/
COPY infra /opt/highwater/src/infra
COPY jobs /opt/highwater/src/jobs
COPY trainers /opt/highwater/src/trainers
RUN uv pip install --no-cache --compile-bytecode --no-deps /opt/highwater/src

ENV PYTHONUNBUFFERED=1 HOME=/home/highwater
WORKDIR /home/highwater
USER 1000:1000
ENTRYPOINT ["highwater"]

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="highwater-submit" \
      org.opencontainers.image.description="The highwater command: starts, watches and stops runs on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
