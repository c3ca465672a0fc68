"""Operations of sparse attention: one folder an operation, with a slow obvious reference beside the
fast paths.

Imports torch, numpy and (lazily) triton; nothing of longspan.
"""
