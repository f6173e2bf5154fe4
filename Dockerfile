# Composing and training. On machines with NVIDIA's container toolkit the default base uses the GPU; for others:
#   docker build --build-arg BASE=python:3.12-slim --build-arg CONSTRAINT="--constraint constraints.txt" -t matting-compose .
#   docker run --rm --shm-size 2g -v "$PWD:/data" matting-compose matting-compose build --help
# The trainer's reading processes hand batches over in shared memory: give them --shm-size.
ARG BASE=pytorch/pytorch:2.6.0-cuda12.4-cudnn9-runtime
FROM ${BASE}
ARG CONSTRAINT=""
WORKDIR /opt/matting-compose
COPY . .
RUN pip install --no-cache-dir ${CONSTRAINT} ".[train,classical,export]" && rm -rf /opt/matting-compose/.git
WORKDIR /data
CMD ["matting-compose", "--help"]
