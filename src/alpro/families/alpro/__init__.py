"""ALPRO (Li et al., CVPR 2022): models, prompter, objectives of pretraining."""
