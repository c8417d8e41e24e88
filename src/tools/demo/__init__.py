"""The embedded dataset: coloured shapes that act in time.

``scenes`` says what happens, ``staging`` where and when, ``rendering`` how it looks, ``captions``
how it is told, ``planning`` which scenes go into which split, ``vocabulary`` how it is tokenized.
"""
