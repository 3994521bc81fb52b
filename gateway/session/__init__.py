"""One SMTP connection through one gateway, without input or output.

`events` go in, `commands` come out: `machine.handle(event, now) -> list[Command]`. `sending` is the gateway
on the sender's side, `receiving` the one on the receiver's; `channel` is what both do after the handshake;
`context` is what a session is told about its surroundings.
"""
