"""Prompter pretraining: the contrastive loss alone makes the teacher of entities.

    [horovodrun -np N] python src/pretrain/run_pretrain_contrastive_only.py
        --config FILE --output_dir DIR [--KEY VALUE ...]

The heavy imports come after the config: ``--help`` and errors in a config come at once.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root, where `src` is

from src.configs.loading import load_config
from src.configs.schema import PrompterConfig
from src.errors import run_script


def main() -> None:
    """Resolve the config, start the engine, then train."""
    resolved = load_config(PrompterConfig, sys.argv[1:])
    from src.build.course import pretrain
    from src.build.launch import launched
    from src.build.prompter import PrompterRecipe

    with launched(resolved) as engine:
        pretrain(PrompterRecipe(resolved, engine=engine))


if __name__ == "__main__":
    run_script(main)
