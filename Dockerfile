# The image of the pipeline's tasks on Kubeflow Pipelines:  make image IMAGE=registry.example/mnist-tfx:1.4.2
# Building needs a package registry; running needs no network at all.

# Python 3.11 on Debian 12: the pair that the lock and compat/ are tested on.
FROM python:3.11-slim-bookworm AS build
# Two dependencies of TFX come as source.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# What the environment is made from comes first, so that an edit of the code does not install everything anew.
COPY requirements.lock pyproject.toml README.md ./
COPY compat ./compat
COPY tools ./tools
RUN mkdir components pipeline serving \
 && python tools/setup.py \
 && .venv/bin/python tools/slim.py \
 && rm -rf "$HOME/.cache"
COPY components ./components
COPY pipeline ./pipeline
COPY serving ./serving
COPY configs ./configs
# The file system is read-only to the task's user, so bytecode is written here or never.
RUN .venv/bin/python -m compileall -q components pipeline serving

FROM python:3.11-slim-bookworm
COPY --from=build /app /app
WORKDIR /app
# HOME: libraries look for a folder of their own there, and the user has none.
# _KFP_RUNTIME: importing KFP's protobufs does not import its compiler.
ENV PATH=/app/.venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2 \
    _KFP_RUNTIME=true
# Numeric, so that Kubernetes can check runAsNonRoot. Group 0: volumes of OpenShift and of KFP are writable to it.
USER 10001:0
# KFP names the command of each task; this is for people who run the image by hand.
CMD ["python", "-m", "pipeline", "--help"]
