"""The cipher of sealed datagrams."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

new_cipher = AESGCM
"""AES-GCM with a key; AES-256 if the key has 32 bytes."""

WRONG_TAG = InvalidTag
"""What it raises if a tag is not right."""
