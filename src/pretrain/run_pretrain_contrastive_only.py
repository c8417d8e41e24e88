"""Prompter pretraining: the contrastive loss alone trains the teacher of entities.

Usage:
    [horovodrun -np N] python src/pretrain/run_pretrain_contrastive_only.py
        --config FILE --output_dir DIR [--KEY VALUE ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # src, where `alpro` is

from alpro.configs.loading import load_config
from alpro.program import run_script
from alpro.tasks.pretraining.config import PrompterConfig


def main() -> None:
    """Resolve the config, start the engine, then train."""
    resolved = load_config(PrompterConfig, sys.argv[1:])
    # The heavy imports come last: ``--help`` and errors in a config come at once.
    from alpro.experiment.experiment import Experiment
    from alpro.runs.run import launch_run, pretrain

    with launch_run(resolved) as engine:
        pretrain(Experiment(resolved, engine=engine))


if __name__ == "__main__":
    run_script(main)
