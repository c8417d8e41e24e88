# What the run scripts share; to be sourced from bash. Changes to the repository root, so that relative
# paths in configs and flags mean the same from wherever a script is called.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}"

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

# launch SCRIPT [FLAG...]: runs a Python script (or a module: launch -m MODULE) in NUM_PROCESSES processes:
# under a launcher, or by itself if that is 1 and there are no HOSTS. Reads these environment variables:
#   NUM_PROCESSES
#   LAUNCHER      (horovodrun where there is one, else torchrun)
#   HOSTS                          where, and how many on each: a:4,b:4. torchrun is to be started on each of
#                                  them, with the same variables; horovodrun on one, and reaches the others by ssh
#   PORT          (29500)          torchrun with HOSTS: of the first host, where all meet
#   MAX_RESTARTS  (0)              torchrun: how often to begin again, from the last restore file, after a failure
launch() {
    activate_environment "$root"
    need_number NUM_PROCESSES "$NUM_PROCESSES" 1
    need_number MAX_RESTARTS "${MAX_RESTARTS:-0}" 0
    if [ "$NUM_PROCESSES" = 1 ] && [ -z "${HOSTS:-}" ] && [ "${MAX_RESTARTS:-0}" = 0 ]; then
        run python "$@"
        return
    fi
    case $(launcher) in
        horovodrun) launch_with_horovodrun "$@" ;;
        torchrun) launch_with_torchrun "$@" ;;
        *) refuse "LAUNCHER is '$LAUNCHER': set it to horovodrun or torchrun" ;;
    esac
}

launch_with_horovodrun() {
    local words=(horovodrun -np "$NUM_PROCESSES")
    need horovodrun
    need_hosts
    [ "${MAX_RESTARTS:-0}" = 0 ] || refuse "MAX_RESTARTS is for torchrun: set LAUNCHER=torchrun"
    [ -z "${HOSTS:-}" ] || words+=(-H "$(hosts | paste -sd ,)")
    run "${words[@]}" python "$@"
}

launch_with_torchrun() {
    local words=(torchrun) counts first port=${PORT:-29500}
    need torchrun
    # What torchrun passes on to the processes; SLURM warns by one of the last two, of which it would end by itself.
    export PET_SIGNALS_TO_HANDLE=${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2}
    if [ -z "${HOSTS:-}" ]; then
        words+=(--standalone --nproc_per_node "$NUM_PROCESSES")
    else
        counts=$(processes_of_hosts) || exit 1
        read -ra counts <<<"${counts//$'\n'/ }"
        [ "$(printf '%s\n' "${counts[@]}" | sort -u | wc -l)" = 1 ] ||
            refuse "HOSTS is '$HOSTS': torchrun needs the same number of processes on every host"
        [ $((${#counts[@]} * counts[0])) = "$NUM_PROCESSES" ] ||
            refuse "NUM_PROCESSES is $NUM_PROCESSES, but HOSTS is '$HOSTS': leave NUM_PROCESSES out"
        words+=(--nnodes "${#counts[@]}" --nproc_per_node "${counts[0]}")
        need_hosts
        first=$(hosts)
        first=${first%%$'\n'*} # not head: it may end before hosts does, which then fails
        need_port "${first%:*}" "$port"
        words+=(--rdzv_backend c10d --rdzv_endpoint "${first%:*}:$port")
    fi
    [ "${MAX_RESTARTS:-0}" = 0 ] || words+=(--max_restarts "$MAX_RESTARTS")
    run "${words[@]}" "$@"
}

# Prints LAUNCHER, or the launcher that is installed.
launcher() {
    activate_environment "$root"
    if [ -n "${LAUNCHER:-}" ]; then
        echo "$LAUNCHER"
    elif ! command -v horovodrun >/dev/null && command -v torchrun >/dev/null; then
        echo torchrun
    else
        echo horovodrun
    fi
}

# need LAUNCHER: fails unless it is there.
need() {
    local alone="NUM_PROCESSES=1${HOSTS:+ and leave HOSTS out}"
    command -v "$1" >/dev/null || refuse "$1 not found: run env/install_pkg.sh, or set $alone"
}

# number_of_processes DEFAULT: prints NUM_PROCESSES, or how many HOSTS has together, or the default.
number_of_processes() {
    local counts
    if [ -n "${NUM_PROCESSES:-}" ] || [ -z "${HOSTS:-}" ]; then
        echo "${NUM_PROCESSES:-$1}"
    else
        counts=$(processes_of_hosts) || exit 1
        echo $((${counts//$'\n'/ + }))
    fi
}

# Prints the numbers in HOSTS, one in each line.
processes_of_hosts() {
    local all
    all=$(hosts) || exit 1
    sed 's/.*://' <<<"$all"
}

# Prints HOSTS, one in each line; spaces are no matter, and IPv6 addresses are in brackets.
hosts() {
    local host word='[^]:[]+' address='\[[0-9A-Fa-f:.]+(%[^]:[]+)?\]'
    for host in ${HOSTS//,/ }; do
        [[ $host =~ ^($word|$address):[1-9][0-9]{0,5}$ ]] ||
            refuse "HOSTS is '$HOSTS': it must look like a:4,b:4 (IPv6: [fe80::1]:4,[fe80::2]:4)"
        echo "$host"
    done
}

# need_hosts: fails unless all HOSTS, or what ssh takes them for, can be reached by their names.
need_hosts() {
    local host all
    [ -n "${HOSTS:-}" ] && command -v getent >/dev/null || return 0
    all=$(hosts) || exit 1
    while read -r host; do
        host=${host%:*}
        addresses "${host//[\[\]]/}" >/dev/null ||
            refuse "HOSTS is '$HOSTS': there is no host $host (getent ahosts $host finds none)"
    done <<<"$all"
}

# addresses HOST: prints its addresses, or those of the host that ssh calls by this name.
addresses() {
    getent ahosts "$1" || getent ahosts "$(ssh -G "$1" 2>/dev/null | sed -n 's/^hostname //p')"
}

# need_port HOST PORT: fails where HOST is this machine and another program has the port.
need_port() {
    local own here host=${1//[\[\]]/}
    need_number PORT "$2" 1
    [ "$2" -le 65535 ] || refuse "PORT is '$2': it must be at most 65535"
    own=" localhost 127.0.0.1 ::1 $(hostname) $(hostname -I 2>/dev/null) "
    for here in "$host" $({ addresses "$host" || true; } 2>/dev/null | cut -d ' ' -f 1 | sort -u); do
        if [[ $own == *" $here "* ]] && (: <>"/dev/tcp/$here/$2") 2>/dev/null; then
            refuse "PORT is $2: another program uses it on $host; set PORT to another one, on every host"
        fi
    done
}

# need_number NAME VALUE LEAST
need_number() {
    [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] && [ "$2" -ge "$3" ] ||
        refuse "$1 is '$2': it must be a whole number, at least $3"
}

# refuse MESSAGE
refuse() {
    echo "$1" >&2
    exit 1
}

# train CONFIG OUTPUT_DIR SCRIPT [FLAG...]: trains with these defaults. Reads these environment variables:
#   NUM_PROCESSES                  processes, one per GPU
#   LAUNCHER, HOSTS, PORT, MAX_RESTARTS    as launch
#   CONFIG
#   OUTPUT_DIR                     give an earlier one to continue it
#   BATCH_SIZE    (the config's)   per process, for training
train() {
    local config=$1 output_dir=$2 script=$3 flags
    shift 3
    if [ -z "${OUTPUT_DIR:-}" ] && [ -n "${HOSTS:-}" ] && [ "$(launcher)" = torchrun ]; then
        refuse "OUTPUT_DIR is not set: the default has the time in it, which differs from host to host"
    fi
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
#   NUM_PROCESSES (8, or as many as HOSTS has)
#   CONFIG        (config_release/SET.json)
#   OUTPUT_DIR    (output/finetune/SET/<time stamp>)
finetune() {
    local set=$1
    shift
    NUM_PROCESSES=$(number_of_processes 8)
    train "config_release/$set.json" "output/finetune/$set/$(time_stamp)" "$@"
}

time_stamp() { date '+%Y%m%d%H%M%S'; }

# infer SET SCRIPT [FLAG...]: evaluates a finetuned checkpoint. Reads NUM_PROCESSES, CONFIG and the
# variables of launch as above, and:
#   OUTPUT_DIR    (output/downstreams/SET/public)    holds ckpt/ and log/, receives the results
#   STEP          (best)                             which ckpt/model_step_<STEP>.pt
#   TXT_DB        (data/SET/txt/test.jsonl)          annotations
#   IMG_DB        (data/SET/videos)                  folder of videos
#   BATCH_SIZE    (64)
infer() {
    local set=$1 script=$2
    shift 2
    NUM_PROCESSES=$(number_of_processes 8)
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
