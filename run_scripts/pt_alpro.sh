#!/usr/bin/env bash
# Pretrains the video-language model with a trained prompter as teacher of entities. common.sh lists the
# environment variables that this reads; further flags are passed on:
#   bash run_scripts/pt_alpro.sh --teacher_weights_path output/pretrain/prompter/first/ckpt/model_step_best.pt
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NUM_PROCESSES=$(number_of_processes 16)
pretrain alpro src/pretrain/run_pretrain_sparse.py "$@"
