#!/usr/bin/env bash
# The whole way on a small data set of its own, on one CPU or GPU: installs what is missing, renders the
# videos, finetunes, evaluates, and shows what the model finds. Further flags go to every step that runs
# the model:
#   bash run_scripts/demo.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly CONFIG=config_release/demo_ret.json
readonly OUTPUT_DIR=${OUTPUT_DIR:-output/demo_ret}
readonly TXT_DB=data/demo/txt/test.jsonl IMG_DB=data/demo/videos
NUM_PROCESSES=${NUM_PROCESSES:-1}

main() {
    echo "== 1. Installation"
    install_and_activate
    local started=$SECONDS

    timed "2. Videos and captions" run python -m src.tools.make_demo_data
    timed "3. Finetuning, then the test clips as they are" retrieve --overwrite 1 "$@"
    timed "4. The test clips with their frames in a random order" evaluate --frame_order shuffled "$@"
    timed "5. The test clips backwards" evaluate --frame_order reversed "$@"
    timed "6. A picture of some queries" run python -m src.tools.contact_sheet \
        --output_dir "$OUTPUT_DIR" --results_dir "$OUTPUT_DIR/results_test/step_best_1_mean"

    echo "== Done in $((SECONDS - started)) s after the installation. 100 captions, 100 clips; chance is R@1 1."
    python -m src.tools.show_results --output_dir "$OUTPUT_DIR"
    echo "   videos, captions   data/demo/"
    echo "   model, log         $OUTPUT_DIR/ckpt/, $OUTPUT_DIR/log/"
    echo "   retrieval results  $OUTPUT_DIR/results_test/"
    echo "   picture            $OUTPUT_DIR/contact_sheet.png"
}

retrieve() {
    # shellcheck disable=SC2046
    launch src/tasks/run_video_retrieval.py --config "$CONFIG" --output_dir "$OUTPUT_DIR" \
        $(execution_flags) "$@"
}

# evaluate [FLAG...]: scores the test captions against the test clips with the best checkpoint.
evaluate() {
    retrieve --do_inference 1 --inference_model_step best \
        --inference_txt_db "$TXT_DB" --inference_img_db "$IMG_DB" "$@"
}

# Measured with this small model: bf16 is twice as fast as fp32 where the processor has instructions for
# it, and one thread is faster than two when the other core decodes videos.
execution_flags() {
    if nvidia-smi -L >/dev/null 2>&1 || grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
        echo "--precision bf16"
    fi
    if [ "$(nproc)" -le 2 ]; then
        echo "--num_threads 1"
    fi
}

timed() {
    local title=$1 started=$SECONDS
    shift
    echo "== $title"
    "$@"
    echo "   ($((SECONDS - started)) s)"
}

main "$@"
