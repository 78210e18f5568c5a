"""Noise protocol framework, revision 34: bytes in, bytes out, with the names of the specification.

``Noise_XX_25519_ChaChaPoly_<hash>`` for its four hashes through one engine; the product speaks
``Noise_XX_25519_ChaChaPoly_SHA256`` and nothing else, and nothing is negotiated.

- ``keys``: X25519 key pairs and DH (§4.1, §12.1).
- ``hashes``: hash functions, HMAC-HASH and HKDF (§4.3).
- ``cipher``: ``CipherState`` (§5.1), ChaCha20-Poly1305 (§12.3), rekeying (§11.3).
- ``symmetric``: ``SymmetricState`` (§5.2).
- ``handshake``: ``HandshakeState`` (§5.3) and the XX pattern (§7.5).

Pure: no sockets, no clock. ``HandshakeState`` draws no randomness: static keys are handed in, ephemeral ones
come from a factory that the caller injects (``KeyPair.generate`` in the product, fixed keys in tests).

Promised after a finished XX handshake, to the extent that X25519, ChaCha20-Poly1305 and the hash hold:
each side talks to the owner of the static key that it learned (``remote_static``), both saw the same prologue
and the same handshake bytes (``handshake_hash``), nobody else can read, alter, reorder, replay or reflect
transport messages, and keys that leak later do not open what was recorded before.

Bad bytes raise ``DecryptFailed`` or ``HandshakeFailed``, both faults of the peer, and nothing else; errors of
the crypto library are converted here, once. Neither says who sent the bytes: anyone on the path can alter
them, so both weigh nothing in a score.

Not promised:

- *Who* owns a static key: ``guts.wire.secure`` binds it to a node key.
- That the initiator's identity is hidden from an active attacker who plays the responder (§7.8).
- That the end of a conversation is authentic: cutting the stream between messages is seen by the layer above.
- That the length, number or time of messages is hidden.
- That keys are wiped from memory: Python cannot.
- Framing: a Noise message does not carry its length; ``guts.wire.secure`` adds it.
"""
