#!/usr/bin/env bash
# Finetunes for text-to-video retrieval on MSRVTT. common.sh lists the environment variables that this
# reads; further flags are passed on:
#   NUM_PROCESSES=4 bash run_scripts/ft_msrvtt_ret.sh --learning_rate 1e-5
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
finetune msrvtt_ret src/tasks/run_video_retrieval.py "$@"
