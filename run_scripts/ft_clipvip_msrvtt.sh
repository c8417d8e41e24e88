#!/usr/bin/env bash
# Finetunes CLIP-ViP for text-to-video retrieval on MSRVTT, with patches of 32 pixels or PATCH=16. common.sh lists the
# further environment variables that this reads; flags are passed on, such as the checkpoint of post-pretraining
# (null: plain CLIP) and the folder that holds the data:
#   PATCH=16 bash run_scripts/ft_clipvip_msrvtt.sh --e2e_weights_path pretrain_clipvip_base_16.pt --blob_mount_dir /data
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
finetune "clip_vip/msrvtt_retrieval_vip_base_${PATCH:-32}" src/tasks/run_video_retrieval.py "$@"
