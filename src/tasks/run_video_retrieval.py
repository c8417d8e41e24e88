"""Text-video retrieval: finetuning with validation and test, or inference with a trained model.

    [horovodrun -np N] python src/tasks/run_video_retrieval.py --config FILE --output_dir DIR
        [--do_inference 1 --inference_txt_db FILE --inference_img_db DIR] [--KEY VALUE ...]

The heavy imports come after the config: ``--help`` and errors in a config come at once.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root, where `src` is

from src.configs.loading import load_config
from src.configs.schema import RetrievalConfig
from src.errors import run_script


def main() -> None:
    """Resolve the config, start the engine, then train or infer."""
    resolved = load_config(RetrievalConfig, sys.argv[1:])
    from src.build.finetuning import finetune, infer
    from src.build.launch import launched
    from src.build.retrieval import RetrievalRecipe

    with launched(resolved) as engine:
        recipe = RetrievalRecipe(resolved, engine=engine)
        if resolved.config.do_inference:
            infer(recipe)
        else:
            finetune(recipe)


if __name__ == "__main__":
    run_script(main)
