#!/usr/bin/env bash
# The whole way on a small data set of its own, on one CPU or GPU: installs what is missing, renders videos
# and images, finds entities in their captions, trains the prompter and with its help the video-language
# model, finetunes that for retrieval and from there for question answering, evaluates, shows what they find
# and answer. Further flags go to every step that runs a model, so all of them must know them:
#   bash run_scripts/demo.sh --seed 1
# Environment variables:
#   OUTPUT_DIR         (output)  receives demo_prompter/, demo_pretrain/, demo_ret/ and demo_qa/
#   NUM_PROCESSES      (1)
#   OVERWRITE          (1)       0: continue an interrupted demo
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly OUTPUT_DIR=${OUTPUT_DIR:-output} OVERWRITE=${OVERWRITE:-1}
NUM_PROCESSES=$(number_of_processes 1)
readonly TXT=data/demo/txt VIDEOS=data/demo/videos
readonly PROMPTER=$OUTPUT_DIR/demo_prompter PRETRAINED=$OUTPUT_DIR/demo_pretrain
readonly RETRIEVAL=$OUTPUT_DIR/demo_ret ANSWERING=$OUTPUT_DIR/demo_qa

# Flags of training, then those that evaluate the best checkpoint on the test set.
readonly FROM_PRETRAINED=(--overwrite "$OVERWRITE" --e2e_weights_path "$PRETRAINED/ckpt/model_step_best.pt")
# Retrieval has taught the video encoder what there is to see, and the fusion layers to tell what belongs
# together. Without the backward pass of the video encoder 6 epochs take no longer than the config's 4.
readonly FROM_RETRIEVAL=(
    --overwrite "$OVERWRITE" --e2e_weights_path "$RETRIEVAL/ckpt/model_step_best.pt"
    --freeze 'visual_encoder.*' --num_train_epochs 6
)
readonly TEST=(--do_inference 1 --inference_model_step best --inference_img_db "$VIDEOS")
readonly RETRIEVAL_TEST=("${TEST[@]}" --inference_txt_db "$TXT/test.jsonl")
readonly QA_TEST=("${TEST[@]}" --inference_txt_db "$TXT/test_qa.jsonl")

main() {
    echo "== 1. Installation"
    # Nobody who tries the demo in one process waits for Horovod to be built.
    [ "$NUM_PROCESSES" != 1 ] || export ALPRO_HOROVOD=${ALPRO_HOROVOD:-0}
    install_and_activate
    local started=$SECONDS

    timed "2. Videos, images, captions and questions" run python -m alpro demo-data
    timed "3. Entities: the nouns of the pretraining captions" run python -m alpro extract-entities \
        --config config_release/demo_pretrain.json --overwrite
    timed "4. The prompter, which is to recognize entities" \
        demo src/pretrain/run_pretrain_contrastive_only.py demo_prompter "$PROMPTER" --overwrite "$OVERWRITE" "$@"
    timed "5. Pretraining with the prompter as teacher" \
        demo src/pretrain/run_pretrain_sparse.py demo_pretrain "$PRETRAINED" --overwrite "$OVERWRITE" \
        --e2e_weights_path "$PROMPTER/ckpt/model_step_best.pt" \
        --teacher_weights_path "$PROMPTER/ckpt/model_step_best.pt" "$@"
    timed "6. A page of what the prompter sees" run python -m alpro show-entities \
        --output_dir "$PRETRAINED"

    timed "7. Retrieval: finetuning from there, then the test clips as they are" \
        retrieve "${FROM_PRETRAINED[@]}" "$@"
    timed "8. The test clips with their frames in a random order" \
        retrieve "${RETRIEVAL_TEST[@]}" --frame_order shuffled "$@"
    timed "9. The test clips backwards" retrieve "${RETRIEVAL_TEST[@]}" --frame_order reversed "$@"
    timed "10. A picture of some queries" run python -m alpro contact-sheet \
        --output_dir "$RETRIEVAL" --results_dir "$RETRIEVAL/results_test/step_best_1_mean"

    timed "11. Question answering: finetuning from retrieval, then the test clips as they are" \
        answer "${FROM_RETRIEVAL[@]}" "$@"
    timed "12. The same questions about the test clips backwards" \
        answer "${QA_TEST[@]}" --frame_order reversed "$@"
    timed "13. A picture of some questions" run python -m alpro answer-sheet \
        --output_dir "$ANSWERING" --results_dir "$ANSWERING/results_test_qa/step_best_1_mean"

    timed "14. An index of the test clips, joined to long videos" run python -m alpro index data/demo/long/test \
        --model "$RETRIEVAL" --index "$OUTPUT_DIR/demo_index" --window 2 --stride 1
    timed "15. Three searches, ranked by VTC and then by VTM" search_three

    echo "== Done in $((SECONDS - started)) s after the installation. 100 captions, 100 clips: by chance R@1 would be 1."
    python -m alpro show-results --output_dir "$RETRIEVAL"
    echo
    python -m alpro show-results --output_dir "$ANSWERING"
    echo "   videos, images, texts   data/demo/"
    echo "   models, logs            $OUTPUT_DIR/demo_{prompter,pretrain,ret,qa}/{ckpt,log}/"
    echo "   entities                $TXT/entities.txt, $PRETRAINED/entities.html"
    echo "   retrieval results       $RETRIEVAL/results_test/, $RETRIEVAL/contact_sheet.png"
    echo "   answers                 $ANSWERING/results_test_qa/, $ANSWERING/answer_sheet.png"
    echo "   search page             python -m alpro serve --index $OUTPUT_DIR/demo_index"
}

# demo SCRIPT CONFIG OUTPUT_DIR [FLAG...]
demo() {
    local script=$1 config=$2 output_dir=$3
    shift 3
    # shellcheck disable=SC2046
    launch "$script" --config "config_release/$config.json" --output_dir "$output_dir" \
        $(small_model_flags) "$@"
}

# search_three: finds the moments of three captions, and says where they are.
search_three() {
    local text there
    while IFS='|' read -r text there; do
        run python -m alpro search "$text" --index "$OUTPUT_DIR/demo_index" --top 3 --rerank 20
        echo "   what the caption is of: $there"
    done < <(sed -nE '1~34s/.*"video": "([^"]+)", "caption": "([^"]+)", "moment": \[([0-9.]+), ([0-9.]+)\].*/\2|\1, seconds \3 to \4/p' \
        "$TXT/long_test.jsonl")
}

# retrieve [FLAG...], answer [FLAG...]
retrieve() { demo src/tasks/run_video_retrieval.py demo_ret "$RETRIEVAL" "$@"; }
answer() { demo src/tasks/run_video_qa.py demo_qa "$ANSWERING" "$@"; }

main "$@"
