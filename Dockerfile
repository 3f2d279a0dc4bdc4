# One image for every Waybill process; compose.yaml and deploy/ name the process of a container.
ARG PYTHON_IMAGE=python:3.13.15-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/waybill
COPY dev/locks/runtime.txt /build/runtime.txt
# Wheels only: a source distribution would run build code here and need a compiler.
RUN pip --python /opt/waybill/bin/python install \
      --require-hashes --only-binary :all: --requirement /build/runtime.txt
WORKDIR /build
COPY LICENSE README.md pyproject.toml ./
COPY gateway gateway
COPY notifier notifier
COPY pipeline pipeline
COPY schemas schemas
# Built by the locked setuptools: an isolated build would download an unlocked one.
RUN pip --python /opt/waybill/bin/python install --no-deps --no-index --no-build-isolation .

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="Waybill" \
      org.opencontainers.image.description="Takes large files in chunks, stores them in S3, reads the PDFs among them, and tells other systems with signed webhooks" \
      org.opencontainers.image.licenses="Apache-2.0"
# Tesseract itself is in the wheel of tesserocr; these are its data. Other languages: add packages
# tesseract-ocr-<language>, and name them in OCR_LANGUAGES if a document may not show its language.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
      tesseract-ocr-ara tesseract-ocr-chi-sim tesseract-ocr-deu tesseract-ocr-eng \
      tesseract-ocr-fra tesseract-ocr-heb tesseract-ocr-jpn tesseract-ocr-osd tesseract-ocr-spa \
 && rm -rf /var/lib/apt/lists/*
# A new volume inherits the owner of these directories.
RUN groupadd --gid 10001 waybill \
 && useradd --uid 10001 --gid waybill --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin waybill \
 && install --directory --owner waybill --group waybill --mode 0750 \
      /var/lib/waybill /var/lib/waybill/staging /var/lib/waybill/work
COPY --from=build /opt/waybill /opt/waybill
# Alembic reads its configuration from pyproject.toml in the working directory.
COPY pyproject.toml /srv/waybill/pyproject.toml
WORKDIR /srv/waybill
# Bytecode is compiled during installation; at run time the file system is read-only.
# OPENBLAS: the workers fork after loading numpy; its threads do not survive a fork.
# OMP: Tesseract is slower with threads, because each line is too little work to share.
ENV PATH=/opt/waybill/bin:$PATH \
    OMP_THREAD_LIMIT=1 \
    OPENBLAS_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
CMD ["waybill-gateway"]
