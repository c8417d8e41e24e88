"""Encoders and the models put together from them: encoder instances in, named tensors out."""
