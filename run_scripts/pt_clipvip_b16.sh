#!/usr/bin/env bash
# Post-pretrains CLIP-ViP, with patches of 16 pixels, from CLIP's weights. common.sh lists the environment variables that
# this reads; further flags are passed on, such as the folder that holds the data:
#   bash run_scripts/pt_clipvip_b16.sh --blob_mount_dir /data
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
NUM_PROCESSES=$(number_of_processes 8)
train config_release/clip_vip/pretrain_vip_base_16.json "output/pretrain/clipvip_b16/$(time_stamp)" \
    src/pretrain/run_pretrain.py "$@"
