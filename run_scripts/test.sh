#!/usr/bin/env bash
# Lints, type-checks, builds the documentation and tests on all cores, after installing what is missing. Further arguments go to pytest:
#   bash run_scripts/test.sh -k sampling
#   bash run_scripts/test.sh -m slow        the tests that take minutes
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
install_and_activate

run python -m ruff check
run python -m ruff format --check
run python -m mypy
NO_MKDOCS_2_WARNING=1 run python -m mkdocs build --quiet --strict
# As many processes as cores, each with one thread.
export OMP_NUM_THREADS=1
run python -m pytest -n auto --durations 15 "$@"
