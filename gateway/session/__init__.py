"""One SMTP connection through one gateway, without input or output.

`events` go in, `commands` come out: `machine.handle(event, now) -> list[Command]`. `sending` is the gateway
on the sender's side, `receiving` the one on the receiver's; `machine` and `channel` are what both have in
common, and `flights` how large what is said looks on the wire; `context` is what a session is told about
its surroundings. Of the sending side: `attempt` is one dial's offer and handshake, `first_flight` what its
sender says meanwhile, `second_look` what the next dial must show, `redials` which of them count and what the
sender is shown, `unoffered` a server without an offer, `rollover` the next identity of a peer.
"""
