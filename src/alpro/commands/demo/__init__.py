"""The embedded dataset: coloured shapes that act in time.

``scenes`` says what happens, ``staging`` where and when, ``rendering`` how it looks, ``captions``
how it is told, ``questions`` what is asked about it, ``planning`` which scenes go into which split,
``vocabulary`` how texts are tokenized.
"""
