#!/usr/bin/env bash
# Measures on the demo's data what pretraining brings, and what the entity loss brings to it: finetunes for
# retrieval and for question answering from the pretrained model, from one pretrained without the entity
# loss, and from random weights, all with the same configs and flags, and prints a table. What is finished
# is skipped, so an interrupted call can be given again. Further flags go to every training run:
#   bash run_scripts/compare_pretraining.sh --num_threads 1
# Two calls with other SEEDS may run side by side once the data are there; the next one with all of them
# prints the table.
# Environment variables:
#   SEEDS          ("42 1 2")
#   OUTPUT_DIR     (output/compare_pretraining)
#   NUM_PROCESSES  (1)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly OUTPUT_DIR=${OUTPUT_DIR:-output/compare_pretraining}
NUM_PROCESSES=$(number_of_processes 1)
read -ra SEEDS <<<"${SEEDS:-42 1 2}"
readonly SEEDS
readonly STARTS=(random without_pem pretrained)
# Shorter than in the demo, as where little is annotated.
readonly SHORT_RETRIEVAL=(--num_train_epochs 1) SHORT_ANSWERING=(--num_train_epochs 3)

main() {
    install_and_activate
    run python -m alpro demo-data
    run python -m alpro extract-entities --config config_release/demo_pretrain.json --overwrite
    local seed start
    for seed in "${SEEDS[@]}"; do
        pretrain_both "$seed" "$@"
        for start in "${STARTS[@]}"; do
            finetune_both "$start" "$seed" "$@"
        done
    done
    run python -m alpro compare-runs \
        --runs "random weights" "${SEEDS[@]/#/$OUTPUT_DIR/random/seed_}" \
        --runs "pretrained without PEM" "${SEEDS[@]/#/$OUTPUT_DIR/without_pem/seed_}" \
        --runs "pretrained" "${SEEDS[@]/#/$OUTPUT_DIR/pretrained/seed_}"
}

# pretrain_both SEED [FLAG...]: trains a prompter, and from its weights the model with and without PEM.
pretrain_both() {
    local seed=$1 prompter
    shift
    once "$OUTPUT_DIR/prompter/seed_$seed" src/pretrain/run_pretrain_contrastive_only.py demo_prompter \
        --seed "$seed" "$@"
    prompter=$OUTPUT_DIR/prompter/seed_$seed/ckpt/model_step_best.pt
    once "$(weights_folder pretrained "$seed")" src/pretrain/run_pretrain_sparse.py demo_pretrain \
        --e2e_weights_path "$prompter" --teacher_weights_path "$prompter" --seed "$seed" "$@"
    once "$(weights_folder without_pem "$seed")" src/pretrain/run_pretrain_sparse.py demo_pretrain \
        --e2e_weights_path "$prompter" --use_mpm 0 --seed "$seed" "$@"
}

# finetune_both START SEED [FLAG...]: finetunes for retrieval and for question answering.
finetune_both() {
    local start=$1 seed=$2 weights folder
    shift 2
    folder=$OUTPUT_DIR/$start/seed_$seed
    weights=(--e2e_weights_path "$(weights_folder "$start" "$seed")/ckpt/model_step_best.pt")
    [ "$start" != random ] || weights=(--e2e_weights_path null --random_init 1)
    once "$folder/ret" src/tasks/run_video_retrieval.py demo_ret "${weights[@]}" --seed "$seed" \
        "${SHORT_RETRIEVAL[@]}" "$@"
    once "$folder/qa" src/tasks/run_video_qa.py demo_qa "${weights[@]}" --seed "$seed" \
        "${SHORT_ANSWERING[@]}" "$@"
}

weights_folder() { echo "$OUTPUT_DIR/$1/seed_$2/pretraining"; }

# once OUTPUT_DIR SCRIPT CONFIG [FLAG...]: trains, unless the same command has been here and has finished,
# on the same data and from the same checkpoints.
once() {
    local output_dir=$1 script=$2 config=$3 command wanted
    shift 3
    # shellcheck disable=SC2046
    command=("$script" --config "config_release/$config.json" --output_dir "$output_dir"
        $(small_model_flags) "$@")
    wanted="${command[*]} $(fingerprint "config_release/$config.json" "$@")"
    if [ "$(cat "$output_dir/finished" 2>/dev/null)" = "$wanted" ]; then
        echo "== $output_dir: finished already"
        return
    fi
    [ ! -f "$output_dir/finished" ] || command+=(--overwrite 1)
    timed "$output_dir" launch "${command[@]}"
    echo "$wanted" >"$output_dir/finished"
}

# fingerprint CONFIG [FLAG...]: of the data, the config, and the checkpoints that flags name.
fingerprint() {
    local argument files=(data/demo/manifest.json)
    for argument in "$@"; do
        case $argument in *.json | *.pt) files+=("$argument") ;; esac
    done
    # What is missing the run itself reports.
    { cat "${files[@]}" 2>/dev/null || true; } | sha256sum | cut -c1-16
}

main "$@"
