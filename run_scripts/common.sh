# What the run scripts share; to be sourced from bash. Changes to the repository root, so that relative
# paths in configs and flags mean the same from wherever a script is called.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# shellcheck source=env/environment.sh
source env/environment.sh

# Installs what is missing (nothing, from the second time on) and uses that environment.
install_and_activate() {
    bash env/install_pkg.sh
    activate_environment "$root"
}

# Prints a command as one could type it, then runs it.
run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

# Prints a title, runs a command, and prints the seconds that it took.
timed() {
    local title=$1 started=$SECONDS
    shift
    echo "== $title"
    "$@"
    echo "   ($((SECONDS - started)) s)"
}

# Flags for a model as small as the demo's. Measured: bf16 is twice as fast as fp32 where the processor has
# instructions for it, and one thread is faster than two when the other core decodes videos.
small_model_flags() {
    if nvidia-smi -L >/dev/null 2>&1 || grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
        echo "--precision bf16"
    fi
    if [ "$(nproc)" -le 2 ]; then
        echo "--num_threads 1"
    fi
}

# Runs a Python script in NUM_PROCESSES processes: under horovodrun, or by itself if that is 1.
launch() {
    local launcher=()
    activate_environment "$root"
    if [ "$NUM_PROCESSES" != 1 ]; then
        if ! command -v horovodrun >/dev/null; then
            echo "horovodrun not found: run env/install_pkg.sh, or set NUM_PROCESSES=1" >&2
            exit 1
        fi
        launcher=(horovodrun -np "$NUM_PROCESSES")
        [ -z "${HOSTS:-}" ] || launcher+=(-H "$HOSTS")
    fi
    run "${launcher[@]}" python "$@"
}

# train CONFIG OUTPUT_DIR SCRIPT [FLAG...]: trains with these defaults. Reads these environment variables:
#   NUM_PROCESSES                  processes, one per GPU
#   HOSTS                          where, as horovodrun -H takes it: a:4,b:4
#   CONFIG
#   OUTPUT_DIR                     give an earlier one to continue it
#   BATCH_SIZE    (the config's)   per process, for training
train() {
    local config=$1 output_dir=$2 script=$3 flags
    shift 3
    flags=(--config "${CONFIG:-$config}" --output_dir "${OUTPUT_DIR:-$output_dir}")
    [ -z "${BATCH_SIZE:-}" ] || flags+=(--train_batch_size "$BATCH_SIZE")
    launch "$script" "${flags[@]}" "$@"
}

# pretrain STAGE SCRIPT [FLAG...]: trains one stage of pretraining. Reads the environment variables of
# train, by default:
#   CONFIG        (config_release/pretrain_STAGE.json)
#   OUTPUT_DIR    (output/pretrain/STAGE/<time stamp>)
pretrain() {
    local stage=$1
    shift
    train "config_release/pretrain_$stage.json" "output/pretrain/$stage/$(time_stamp)" "$@"
}

# finetune SET SCRIPT [FLAG...]: finetunes on one data set. Reads the environment variables of train, by
# default:
#   NUM_PROCESSES (8)
#   CONFIG        (config_release/SET.json)
#   OUTPUT_DIR    (output/finetune/SET/<time stamp>)
finetune() {
    local set=$1
    shift
    NUM_PROCESSES=${NUM_PROCESSES:-8}
    train "config_release/$set.json" "output/finetune/$set/$(time_stamp)" "$@"
}

time_stamp() { date '+%Y%m%d%H%M%S'; }

# infer SET SCRIPT [FLAG...]: evaluates a finetuned checkpoint. Reads NUM_PROCESSES, HOSTS and CONFIG
# as above, and:
#   OUTPUT_DIR    (output/downstreams/SET/public)    holds ckpt/ and log/, receives the results
#   STEP          (best)                             which ckpt/model_step_<STEP>.pt
#   TXT_DB        (data/SET/txt/test.jsonl)          annotations
#   IMG_DB        (data/SET/videos)                  folder of videos
#   BATCH_SIZE    (64)
infer() {
    local set=$1 script=$2
    shift 2
    NUM_PROCESSES=${NUM_PROCESSES:-8}
    launch "$script" \
        --do_inference 1 \
        --inference_split test \
        --inference_model_step "${STEP:-best}" \
        --inference_txt_db "${TXT_DB:-data/$set/txt/test.jsonl}" \
        --inference_img_db "${IMG_DB:-data/$set/videos}" \
        --inference_batch_size "${BATCH_SIZE:-64}" \
        --output_dir "${OUTPUT_DIR:-output/downstreams/$set/public}" \
        --config "${CONFIG:-config_release/$set.json}" \
        "$@"
}
