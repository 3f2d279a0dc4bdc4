# One image for every Waybill process; compose.yaml and deploy/ say which one a container runs.
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/waybill
COPY dev/locks/runtime.txt /build/runtime.txt
# Wheels alone: a source distribution would run its build code here and need a compiler.
RUN pip --python /opt/waybill/bin/python install \
      --require-hashes --only-binary :all: --requirement /build/runtime.txt
WORKDIR /build
COPY LICENSE README.md pyproject.toml ./
COPY gateway gateway
COPY notifier notifier
COPY pipeline pipeline
COPY schemas schemas
# Built by the locked setuptools: an isolated build would fetch an unlocked one.
RUN pip --python /opt/waybill/bin/python install --no-deps --no-index --no-build-isolation .

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="Waybill" \
      org.opencontainers.image.description="Takes large files in chunks, stores them in S3, reads the PDFs among them, and tells other systems with signed webhooks" \
      org.opencontainers.image.licenses="Apache-2.0"
# The directories belong to the user here because a new volume takes over their owner.
RUN groupadd --gid 10001 waybill \
 && useradd --uid 10001 --gid waybill --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin waybill \
 && install --directory --owner waybill --group waybill --mode 0750 \
      /var/lib/waybill /var/lib/waybill/staging /var/lib/waybill/work
COPY --from=build /opt/waybill /opt/waybill
# Alembic's configuration is in pyproject.toml, and it looks there in its working directory.
COPY pyproject.toml /srv/waybill/pyproject.toml
WORKDIR /srv/waybill
# Bytecode was compiled at installation; at run time nobody could write it anyway.
# OPENBLAS: the workers fork after loading numpy, and its threads would not survive that.
ENV PATH=/opt/waybill/bin:$PATH \
    OPENBLAS_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
CMD ["waybill-gateway"]
