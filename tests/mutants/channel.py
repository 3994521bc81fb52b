"""Checks of frames and records, and of what they mean. Counterparts: docs/protocol.md sections 5, 8 and 9."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

_records = Room("gateway/crypto/records.py")
_records.lacks(
    "the sender changes keys after 16,384 records",
    """        if not cipher.n & _REKEY_MASK:
            cipher.rekey()
        return sealed
""",
    "        return sealed\n",
)
_records.lacks(
    "the reader changes keys after 16,384 records",
    """        if not cipher.n & _REKEY_MASK:
            cipher.rekey()
        try:
            record = _decoded(inner)
""",
    "        try:\n            record = _decoded(inner)\n",
)
_records.lacks(
    "what stood in a record that is none is wiped",
    "            inner[:] = bytes(len(inner))\n",
    "",
)
_records.lacks(
    "a record layer that failed is dead",
    "        self.receives = Direction.DEAD\n        cipher = ",
    "        cipher = ",
)
_records.lacks(
    "no record follows CLOSE",
    "        self.receives = Direction.CLOSED if record.kind in _LAST else Direction.RUNNING",
    "        self.receives = Direction.RUNNING",
)
_records.lacks(
    "we send nothing behind CLOSE",
    "        if kind in _LAST:\n            self.sends = Direction.CLOSED\n",
    "",
)
_records.lacks(
    "nobody is a peer before the first record",
    '            raise LocalMisuseError("the peer has not proven itself yet")',
    "            return self._verified()",
)
_records.lacks(
    "only a record layer makes a verified peer",
    "        if proof is not _PROOF:",
    "        if proof is None:",
)
_records.lacks(
    "padding is zero",
    "    if end < len(inner) and inner.count(0, end) != len(inner) - end:",
    "    if False:",
)
_records.lacks("content ends within its record", "    if end > len(inner):", "    if False:")
_records.lacks(
    "an unknown record type is an error",
    '        raise PeerProtocolError(Reason.BAD_RECORD, f"record type {inner[0]}")',
    "        kind = RecordType.PAD",
)
_records.lacks(
    "OPEN and END are errors",
    "_RESERVED: Final = frozenset((RecordType.OPEN, RecordType.END))",
    "_RESERVED: Final[frozenset[RecordType]] = frozenset()",
)
_records.lacks(
    "CLOSE, RESET and PAD have no content",
    "    if kind in _WITHOUT_CONTENT and end != INNER_HEADER_OCTETS:",
    "    if False:",
)
_records.lacks(
    "the frame's header is under the tag",
    "header + cipher.encrypt_with_ad(header, inner)",
    'header + cipher.encrypt_with_ad(b"", inner)',
    "cipher.decrypt_into(frame_header(FrameKind.RECORD, len(body)), body, inner)",
    'cipher.decrypt_into(b"", body, inner)',
)

_frames = Room("gateway/crypto/frames.py")
_frames.lacks(
    "a clear octet in the channel is an error at once",
    "        if left and octets[at] < _LOWEST_TYPE:",
    "        if False:",
)
_frames.lacks(
    "a record frame has room for a record",
    "    FrameKind.RECORD: range(_SHORTEST_RECORD, FRAME_BODY_OCTETS + 1),",
    "    FrameKind.RECORD: range(FRAME_BODY_OCTETS + 1),",
)
_frames.lacks(
    "an answer frame has an answer's length",
    "    FrameKind.ANSWER: frozenset((*(form.answer_octets for form in OfferForm), RESUMED_ANSWER_OCTETS)),",
    "    FrameKind.ANSWER: range(FRAME_BODY_OCTETS + 1),",
)
_frames.lacks(
    "a frame reader that failed is dead",
    "        self._dead = True\n        frames, at = ",
    "        frames, at = ",
)

_params = Room("gateway/crypto/params.py")
_params.lacks("a parameter comes once", "            if kind in seen:", "            if False:")
_params.lacks(
    "a parameter is not cut off",
    "        if begins > len(content) or ends > len(content):",
    "        if False:",
)
_params.lacks(
    "a software version is printable",
    "    return 0 < len(value) <= PARAMS_VERSION_OCTETS and all(0x20 <= octet < 0x7F for octet in value)",
    "    return 0 < len(value) <= PARAMS_VERSION_OCTETS",
)

_channel = Room("gateway/session/channel.py")
_channel.lacks(
    "of statements that nobody reads no more is kept than one can have",
    'record.content if len(record.content) == STATEMENT.octets else b""',
    "record.content",
)
_channel.lacks(
    "not even the beginning of a frame follows CLOSE",
    "            if self.far_closed and self._frames.held_octets and not self.finished:",
    "            if False:",
)
_channel.lacks(
    "an end without CLOSE is a reset",
    "        return self.fail(Reason.END_WITHOUT_CLOSE)",
    "        return [SendEnd(Side.NEAR)]",
)
_channel.lacks(
    "an answer frame in a channel is an error",
    "                if frame.kind is not FrameKind.RECORD:",
    "                if False:",
)
_channel.lacks(
    "the end of the near side travels under a tag",
    "        return [SendOctets(Side.FAR, close, last=True), SendEnd(Side.FAR), *self._finish_if_over()]",
    "        return [SendEnd(Side.FAR), *self._finish_if_over()]",
)
_channel.lacks(
    "octets behind RESET are not read",
    "                if self.finished:\n                    break",
    "                if False:\n                    break",
)
_channel.lacks(
    "a channel that failed resets the mail server",
    """            NoteFact("channel-failed", reason, detail),
            SendReset(Side.NEAR),
""",
    """            NoteFact("channel-failed", reason, detail),
            SendEnd(Side.NEAR),
""",
)
_channel.lacks(
    "malformed PARAMS are an error", "            Params.decode(record.content)\n", "            pass\n"
)

_padding = Room("gateway/crypto/padding.py")
_padding.lacks(
    "sizes are rounded up to Padme's steps",
    "    mask = _STEPS[octets.bit_length()] - 1\n    return (octets + mask) & ~mask",
    "    return octets",
    "    mask = _STEPS[size.bit_length()] - 1  # as in `padme`\n",
    "    mask = 0\n",
)
_padding.lacks(
    "what leaves before the end of a large flight is cut at its last step",
    "    return below & ~(min(_STEPS[below.bit_length()], FLIGHT_HELD_STEP_OCTETS) - 1)",
    "    return below",
)
_padding.lacks(
    "no more is held than the grid",
    "min(_STEPS[below.bit_length()], FLIGHT_HELD_STEP_OCTETS)",
    "_STEPS[below.bit_length()]",
)

_flights = Room("gateway/session/flights.py")
_flights.lacks(
    "a flight that leaves at once is padded",
    "        pad = flight_padding(since, self._padded)\n        self._padded += since + pad",
    "        pad = 0\n        self._padded += since + pad",
)
_flights.lacks(
    "CLOSE and RESET are padded",
    "        pad = flight_padding(since, self._padded)\n        if not (self._held",
    "        pad = 0\n        if not (self._held",
)
_flights.lacks(
    "the end of a large flight waits for silence",
    "        if size < limits.LARGE_FLIGHT_OCTETS:",
    "        if True:",
)
_flights.lacks(
    "the first record waits for no end of a large answer",
    "        return min(deadline, self._until) if self._waiting else deadline",
    "        return deadline",
)

CHANNEL: Final[tuple[Mutant, ...]] = mutants_of(_records, _frames, _params, _channel, _padding, _flights)
