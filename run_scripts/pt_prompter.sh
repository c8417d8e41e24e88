#!/usr/bin/env bash
# Trains the prompter, which later teaches entities. common.sh lists the environment variables that this
# reads; further flags are passed on:
#   NUM_PROCESSES=4 bash run_scripts/pt_prompter.sh --learning_rate 5e-5
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NUM_PROCESSES=$(number_of_processes 8)
pretrain prompter src/pretrain/run_pretrain_contrastive_only.py "$@"
