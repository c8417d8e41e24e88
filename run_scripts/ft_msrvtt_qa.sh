#!/usr/bin/env bash
# Finetunes for question answering on MSRVTT-QA. common.sh lists the environment variables that this reads;
# further flags are passed on:
#   NUM_PROCESSES=4 bash run_scripts/ft_msrvtt_qa.sh --learning_rate 3e-5
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
finetune msrvtt_qa src/tasks/run_video_qa.py "$@"
