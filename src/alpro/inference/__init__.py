"""Use of trained models: folders of models, embeddings, answers, and windows of long videos."""
