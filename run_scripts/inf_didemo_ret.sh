#!/usr/bin/env bash
# Evaluates a checkpoint finetuned for text-to-video retrieval on DiDeMo. common.sh lists the environment
# variables that this reads; further flags are passed on:
#   STEP=last bash run_scripts/inf_didemo_ret.sh --retrieval_top_k 100
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
infer didemo_ret src/tasks/run_video_retrieval.py "$@"
