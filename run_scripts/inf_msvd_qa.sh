#!/usr/bin/env bash
# Evaluates a checkpoint finetuned for question answering on MSVD-QA. common.sh lists the environment
# variables that this reads; further flags are passed on:
#   STEP=last bash run_scripts/inf_msvd_qa.sh --inference_n_clips 4
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
infer msvd_qa src/tasks/run_video_qa.py "$@"
