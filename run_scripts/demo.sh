#!/usr/bin/env bash
# The whole way on a small data set of its own, on one CPU or GPU: installs what is missing, renders the
# videos, finetunes, evaluates, and shows what the model finds. Further flags go to the finetuning:
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
    timed "3. Finetuning" launch src/tasks/run_video_retrieval.py \
        --config "$CONFIG" --output_dir "$OUTPUT_DIR" --overwrite 1 "$@"
    timed "4. Test clips as they are" evaluate
    timed "5. The same frames in a random order" evaluate --frame_order shuffled
    timed "6. The same frames backwards" evaluate --frame_order reversed
    timed "7. Contact sheet" run python -m src.tools.contact_sheet --output_dir "$OUTPUT_DIR"

    echo "== Done: $((SECONDS - started)) s after the installation. Outputs:"
    echo "   videos, captions   data/demo/"
    echo "   model, log         $OUTPUT_DIR/ckpt/, $OUTPUT_DIR/log/"
    echo "   retrieval results  $OUTPUT_DIR/results_test*/"
}

# evaluate [FLAG...]: scores the test captions against the test clips with the best checkpoint.
evaluate() {
    launch src/tasks/run_video_retrieval.py --config "$CONFIG" --output_dir "$OUTPUT_DIR" \
        --do_inference 1 --inference_model_step best \
        --inference_txt_db "$TXT_DB" --inference_img_db "$IMG_DB" "$@"
}

timed() {
    local title=$1 started=$SECONDS
    shift
    echo "== $title"
    "$@"
    echo "   ($((SECONDS - started)) s)"
}

main "$@"
