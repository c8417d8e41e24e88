"""The demo dataset: coloured shapes that act in time.

``scenes`` defines things and their actions, ``trajectories`` their positions, ``rendering`` draws
them, ``captions`` and ``questions`` make the texts, ``noise`` those of pretraining, ``planning``
assigns scenes to splits, ``vocabulary`` defines the tokenizer.
"""
