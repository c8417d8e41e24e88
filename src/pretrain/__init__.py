"""Pretraining: the prompter, then the video-language model; one entry script and Task for each."""
