"""What identifies weights, tokenizer and template, at a cost that hardly grows with the weights."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

WHOLE_BYTES = 100 * 2**20
SAMPLE_BYTES = 2**16
SAMPLES = 64


def sha(text: str | bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:16]


def weights_fingerprint(folder: Path, *, code: bool = False) -> str:
    """A digest of config.json and every safetensors file of a folder, and of the `code` that lies
    there where that runs; times and places do not enter.

    Files up to 100 MB are read whole; of larger ones the size, the header and 64 evenly spaced
    blocks of 64 KB.
    """
    digest = hashlib.sha256()
    kinds = ("config.json", "*.safetensors", *(("*.py",) if code else ()))
    for path in sorted(path for kind in kinds for path in folder.glob(kind)):
        digest.update(path.name.encode())
        digest.update(_file_digest(path))
    return digest.hexdigest()[:16]


def _file_digest(path: Path) -> bytes:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return digest.digest()
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        digest.update(file.read(min(header_bytes, WHOLE_BYTES)))
        for sample in range(SAMPLES):
            file.seek(sample * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A digest of the whole tokenizer: vocabulary, merges, special tokens; 16 hexadecimal digits.

    The chat template does not enter: it changes prompts, not tokens.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return sha(backend.to_str())
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return sha(json.dumps([type(tokenizer).__name__, vocabulary], ensure_ascii=False))
