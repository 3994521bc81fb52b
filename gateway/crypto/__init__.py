"""How two gateways agree on keys, and the records after. Pure: no socket, no clock, no randomness.

  primitives   the only importer of PyNaCl and cryptography: sizes, refusals, redaction
  keys         identity, static key with its endorsement, ephemerals: three keys, three purposes
  messages     every message as one table of fields; prologue; flags; the address that S dialled
  noise        cipher, symmetric and handshake state as the Noise specification has them; patterns as data
  handshake    both sides, up to a `HandshakeResult` (the only thing a record layer is made of)
  frames       type, length, body: cuts a byte stream
  records      seal, open, rekey, padding, authenticated end; `VerifiedPeer`
  padding      how large a flight is made to look
  params       the TLVs of a PARAMS record
  statement    the old identity names the new one, and the new one agrees
  rotation     a site's own identity: announced, used, shown; export: the same under a passphrase

The normative text is docs/protocol.md.
"""
