#!/usr/bin/env bash
# The whole way on a small data set of its own, on one CPU or GPU: installs what is missing, renders the
# videos, finetunes for retrieval and from there for question answering, evaluates, and shows what the
# models find and answer. Further flags go to every step that runs a model, so both tasks must know them:
#   bash run_scripts/demo.sh --seed 1
# Environment variables:
#   WITH_SCRATCH=1     also train question answering from random weights, to see what retrieval brings
#   OUTPUT_DIR         (output/demo_ret)         retrieval
#   QA_OUTPUT_DIR      (output/demo_qa)          question answering
#   SCRATCH_OUTPUT_DIR (output/demo_qa_scratch)  the same from random weights
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly OUTPUT_DIR=${OUTPUT_DIR:-output/demo_ret}
readonly QA_OUTPUT_DIR=${QA_OUTPUT_DIR:-output/demo_qa}
readonly SCRATCH_OUTPUT_DIR=${SCRATCH_OUTPUT_DIR:-output/demo_qa_scratch}
readonly WITH_SCRATCH=${WITH_SCRATCH:-0}
readonly TXT=data/demo/txt VIDEOS=data/demo/videos
NUM_PROCESSES=${NUM_PROCESSES:-1}

main() {
    echo "== 1. Installation"
    install_and_activate
    local started=$SECONDS

    timed "2. Videos, captions and questions" run python -m src.tools.make_demo_data

    timed "3. Retrieval: finetuning, then the test clips as they are" retrieve --overwrite 1 "$@"
    timed "4. The test clips with their frames in a random order" \
        retrieve "${RETRIEVAL_TEST[@]}" --frame_order shuffled "$@"
    timed "5. The test clips backwards" retrieve "${RETRIEVAL_TEST[@]}" --frame_order reversed "$@"
    timed "6. A picture of some queries" run python -m src.tools.contact_sheet \
        --output_dir "$OUTPUT_DIR" --results_dir "$OUTPUT_DIR/results_test/step_best_1_mean"

    timed "7. Question answering: finetuning from there, then the test clips as they are" \
        answer "$QA_OUTPUT_DIR" --overwrite 1 \
        --e2e_weights_path "$OUTPUT_DIR/ckpt/model_step_best.pt" "${FROM_RETRIEVAL[@]}" "$@"
    timed "8. The same questions about the test clips backwards" \
        answer "$QA_OUTPUT_DIR" "${QA_TEST[@]}" --frame_order reversed "$@"
    timed "9. A picture of some questions" run python -m src.tools.answer_sheet \
        --output_dir "$QA_OUTPUT_DIR" --results_dir "$QA_OUTPUT_DIR/results_test_qa/step_best_1_mean"
    local qa_folders=("$QA_OUTPUT_DIR")
    if [ "$WITH_SCRATCH" = 1 ]; then
        timed "10. Question answering from random weights" \
            answer "$SCRATCH_OUTPUT_DIR" --overwrite 1 --e2e_weights_path null --random_init 1 "$@"
        qa_folders+=("$SCRATCH_OUTPUT_DIR")
    fi

    echo "== Done in $((SECONDS - started)) s after the installation. 100 captions, 100 clips; chance is R@1 1."
    python -m src.tools.show_results --output_dir "$OUTPUT_DIR"
    echo
    python -m src.tools.show_results --output_dir "${qa_folders[@]}"
    echo "   videos, captions, questions   data/demo/"
    echo "   models, logs                  $OUTPUT_DIR/{ckpt,log}/, $QA_OUTPUT_DIR/{ckpt,log}/"
    echo "   retrieval results             $OUTPUT_DIR/results_test/, $OUTPUT_DIR/contact_sheet.png"
    echo "   answers                       $QA_OUTPUT_DIR/results_test_qa/, $QA_OUTPUT_DIR/answer_sheet.png"
}

# Flags that score the test captions, or answer the test questions, with the best checkpoint.
readonly TEST=(--do_inference 1 --inference_model_step best --inference_img_db "$VIDEOS")
readonly RETRIEVAL_TEST=("${TEST[@]}" --inference_txt_db "$TXT/test.jsonl")
readonly QA_TEST=("${TEST[@]}" --inference_txt_db "$TXT/test_qa.jsonl")

# Retrieval has taught the video encoder what there is to see. Without its backward pass 8 epochs take no
# longer than the 6 of the config.
readonly FROM_RETRIEVAL=(--freeze 'visual_encoder.*' --num_train_epochs 8)

# retrieve [FLAG...]
retrieve() {
    # shellcheck disable=SC2046
    launch src/tasks/run_video_retrieval.py --config config_release/demo_ret.json \
        --output_dir "$OUTPUT_DIR" $(execution_flags) "$@"
}

# answer OUTPUT_DIR [FLAG...]
answer() {
    local output_dir=$1
    shift
    # shellcheck disable=SC2046
    launch src/tasks/run_video_qa.py --config config_release/demo_qa.json \
        --output_dir "$output_dir" $(execution_flags) "$@"
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
