#!/usr/bin/env bash
# Evaluates CLIP-ViP for text-to-video retrieval on DiDeMo: a run in OUTPUT_DIR, or a checkpoint. common.sh lists the
# environment variables that this reads beside PATCH (32); flags are passed on. Zero-shot, CLIP-ViP and plain CLIP:
#   bash run_scripts/inf_clipvip_didemo.sh --e2e_weights_path pretrain_clipvip_base_32.pt
#   bash run_scripts/inf_clipvip_didemo.sh --vision_type plain --e2e_weights_path clip-vit-base-patch32/model.safetensors
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
TXT_DB=${TXT_DB:-datasets/lfvideo_data/task/didemo/test.jsonl}
IMG_DB=${IMG_DB:-datasets/didemo/didemo_video_xfps/}
infer "clip_vip/didemo_retrieval_vip_base_${PATCH:-32}" src/tasks/run_video_retrieval.py "$@"
