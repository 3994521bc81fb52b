"""What is generated in docs/, by name. A new block: a function without arguments that answers Markdown,
a line in `BLOCKS`, and its two markers in the document (see `scripts.docs`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scripts.blocks import (
    costs,
    faults,
    house,
    limits,
    octets,
    overview,
    pictures,
    proof,
    soak,
    states,
    vectors,
)

BLOCKS: Mapping[str, Callable[[], str]] = {
    "answer-octets": octets.answer_octets,
    "answer-payload-octets": octets.answer_payload_octets,
    "costs": costs.reached,
    "costs-growth": costs.growth,
    "costs-page": costs.page,
    "costs-rivals-bars": costs.rivals_bars,
    "costs-rivals-load": costs.rivals_load,
    "costs-rivals-machine": costs.machine,
    "costs-rivals-time": costs.rivals_time,
    "faults": faults.catalogue,
    "faults-elsewhere": faults.elsewhere,
    "faults-measured": faults.measured,
    "faults-put-back": faults.put_back,
    "files": house.files,
    "flags": octets.flags,
    "frame-octets": octets.frame_octets,
    "frame-types": octets.frame_types,
    "layers": house.layers,
    "limits": limits.specified_table,
    "limits-own": limits.own_table,
    "message-sizes": octets.message_sizes,
    "noise-patterns": octets.noise_patterns,
    "offer-octets": octets.offer_octets,
    "params-octets": octets.params_octets,
    "params-types": octets.params_types,
    "resumed-answer-octets": octets.resumed_answer_octets,
    "resumed-offer-octets": octets.resumed_offer_octets,
    "record-octets": octets.record_octets,
    "record-sizes": octets.record_sizes,
    "record-types": octets.record_types,
    "proof-claims": proof.claims,
    "receiving-states": states.receiving_states,
    "receiving-transitions": states.receiving_transitions,
    "soak": soak.run,
    "soak-measured": soak.measured,
    "sending-states": states.sending_states,
    "sending-transitions": states.sending_transitions,
    "stage-transitions": states.stage_transitions,
    "stages": states.stages,
    "statement-octets": octets.statement_octets,
    "vector-full": vectors.full,
    "vector-padding": vectors.padding,
    "vector-resumed": vectors.resumed,
    "vector-short": vectors.short,
    "vector-statement": vectors.statement,
    "vector-surroundings": vectors.surroundings,
}
"""Blocks between markers, in any of docs/*.md."""

PICTURES: Mapping[str, Callable[[], str]] = {
    "pictures/protocol.svg": pictures.protocol,
    "pictures/listener.svg": overview.listener,
    "pictures/reach.svg": overview.reach,
    "pictures/router.svg": pictures.router,
    "pictures/host.svg": pictures.host,
    "pictures/bridge.svg": pictures.bridge,
}
"""Whole files below docs/."""
