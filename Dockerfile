# The project on CPUs, without Horovod; torchrun starts several processes. Not built by the tests.
#   docker build -t alpro .
#   docker run --rm --shm-size 4g -v "$PWD/data:/alpro/data" -v "$PWD/output:/alpro/output" alpro \
#       bash run_scripts/demo.sh
FROM python:3.11-slim-bookworm

# The CPU build of PyTorch, in an environment that every script finds.
ENV ALPRO_HOROVOD=0 ALPRO_VENV=/opt/alpro UV_TORCH_BACKEND=cpu UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1
ENV PATH=/opt/alpro/bin:$PATH

WORKDIR /alpro
COPY . .
RUN bash env/install_pkg.sh

CMD ["alpro", "--help"]
