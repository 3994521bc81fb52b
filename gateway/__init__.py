"""Nightmail: carries SMTP between two sites' gateways encrypted, and touches no mail server.

Words used everywhere:
  sender, receiver            the two mail servers (RFC 5321's client and server of one session)
  sending, receiving gateway  ours, on the sender's and on the receiver's side
  near, far                   of a gateway: towards its own mail server, towards the wire
  accepted, dialled           the connection that a gateway accepted, and the one that it made
  initiator, responder        Noise's roles: the receiving gateway initiates (only used in `crypto`)
  offer, verb, answer         message 1 in the EHLO reply, the XNIGHTMAIL line, message 2 behind it

Rooms, low to high (imports only look down; see docs/architecture.md):
  errors, policy.limits       the blame tree, the reasons, every number
  form                        compiled modules or their sources: asked for below, before all else
  smtp                        what two mail servers say, up to the decision
  crypto                      how two gateways agree on keys, and the records after
  peers, policy               whom we have met, and what we do about it
  session                     one connection, without input or output
  config                      one TOML file; `values`, `addresses`, `outlets`, `config_text` are its parts
  intercept                   how packets reach us (netfilter, netlink, transparent sockets)
  observe                     log and counters
  eyes                        what a listener on the wire sees
  runtime                     the only room with an event loop
  operator, lab, cli          what people ask for
"""

from pathlib import Path

from gateway import form

__version__ = "0.1.0"

LIBRARY_TROUBLE = form.choose(Path(__file__).parent)
"""Why this process runs the sources although the package has them compiled; mostly empty."""
