# The image for the pipeline's tasks on Kubeflow Pipelines:  make image IMAGE=registry.example/mnist-tfx:1.4.2
# Building needs a package registry; running needs no network at all.

# Python 3.11 on Debian 12: requirements.lock and compat/ are tested with this pair.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
# The inputs of the environment come first, so that a change of the code does not reinstall all packages.
COPY requirements.lock pyproject.toml README.md LICENSE ./
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
# The task's user cannot write to the file system, so compile to bytecode now.
RUN .venv/bin/python -m compileall -q components pipeline serving

FROM ${PYTHON_IMAGE}
COPY --from=build /app /app
WORKDIR /app
# HOME: libraries create folders there, and the user has no home.
# _KFP_RUNTIME: keeps `import kfp` from importing KFP's compiler.
ENV PATH=/app/.venv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2 \
    _KFP_RUNTIME=true
# Numeric, so that Kubernetes can check runAsNonRoot. Group 0 can write to the volumes of OpenShift and KFP.
USER 10001:0
# KFP sets the command of each task; this one is for people who run the image by hand.
CMD ["python", "-m", "pipeline", "--help"]
