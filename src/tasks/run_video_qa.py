"""Video question answering: finetuning with validation and test, or inference.

Usage:
    [horovodrun -np N] python src/tasks/run_video_qa.py --config FILE --output_dir DIR
        [--do_inference 1 --inference_txt_db FILE --inference_img_db DIR] [--KEY VALUE ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # src, where `alpro` is

from alpro.configs.loading import load_config
from alpro.program import run_script
from alpro.tasks.question_answering.config import QaConfig


def main() -> None:
    """Resolve the config, start the engine, then train or infer."""
    resolved = load_config(QaConfig, sys.argv[1:])
    # The heavy imports come last: ``--help`` and errors in a config come at once.
    from alpro.experiment.experiment import Experiment
    from alpro.runs.run import finetune, infer, launch_run

    with launch_run(resolved) as engine:
        experiment = Experiment(resolved, engine=engine)
        if resolved.config.do_inference:
            infer(experiment)
        else:
            finetune(experiment)


if __name__ == "__main__":
    run_script(main)
