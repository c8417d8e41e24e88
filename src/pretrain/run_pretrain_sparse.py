"""Video-language pretraining: contrastive, matching, masked language and entity losses.

    [horovodrun -np N] python src/pretrain/run_pretrain_sparse.py
        --config FILE --output_dir DIR [--KEY VALUE ...]

The heavy imports come after the config: ``--help`` and errors in a config come at once.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root, where `src` is

from src.configs.loading import load_config
from src.configs.schema import PretrainConfig
from src.errors import run_script


def main() -> None:
    """Resolve the config, start the engine, then train."""
    resolved = load_config(PretrainConfig, sys.argv[1:])
    from src.build.course import pretrain
    from src.build.launch import launched
    from src.build.pretraining import VideoLanguageRecipe

    with launched(resolved) as engine:
        pretrain(VideoLanguageRecipe(resolved, engine=engine))


if __name__ == "__main__":
    run_script(main)
