"""A gate and a plain relay in one process, for the tests of the rules: no mail, no channel, no policy.

Called with one JSON object; writes one JSON line for each thing that happens, the first one when it is
ready. Runs until it is killed: that is what it is for.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sys
from collections.abc import Coroutine, Iterable
from ipaddress import ip_network
from typing import Any

from gateway.config import Config
from gateway.intercept import ruleset, tproxy
from gateway.intercept.gate import Claim, CloseUnclaimed, Dial, Gate, GiveVerdict
from gateway.intercept.marks import MarkBits
from gateway.intercept.nfqueue import HeldPacket, SynQueue
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.pulse import Pulse
from gateway.intercept.roles import Refusal, Roles
from gateway.intercept.syn import Flow, parse_syn


def tell(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class Worker:
    def __init__(self, options: dict[str, Any]) -> None:
        config = Config(
            inside=tuple(options.get("config_inside", ["lan"])),
            outside=tuple(options.get("config_outside", ["wan"])),
        )
        self.slot = ruleset.slots_of(config)[options.get("slot", 0)]
        self.bits = MarkBits(config.marks.mask)
        self.roles = Roles(config.inside, config.outside, map(ip_network, options["inside_networks"]))
        self.gate = Gate(held_limit=options.get("held_limit", 4096))
        self.loop = asyncio.get_running_loop()
        self.ready: dict[Flow, socket.socket] = {}
        self.tasks: set[asyncio.Task[object]] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            self.start(self.accept(tproxy.listener(family, self.slot.port, self.bits)))
        self.queue = SynQueue(self.slot.queue, self.packet)
        self.loop.add_reader(self.queue.fd(), self.queue.run)
        self.start(self.ticks())
        self.heart = Pulse(self.bits, self.slot.index)
        self.heart.beat()  # the kernel lets SYNs by until it has heard it
        self.start(self.pulse())

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def ticks(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            self.carry_out(self.gate.tick(self.loop.time()))

    async def pulse(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.heart.beat()

    def packet(self, token: HeldPacket, payload: bytes, mark: int, interface: str) -> None:
        flow = parse_syn(payload)
        assert flow is not None, "the rules bring no other packets"
        role = self.roles.of(flow, interface)
        tell("syn", flow=str(flow), role=str(role), mark=mark, interface=interface)
        if isinstance(role, Refusal):
            self.carry_out([GiveVerdict((token, mark), role.verdict)])
        else:
            self.carry_out(self.gate.syn_arrived((token, mark), flow, role, self.loop.time()))

    def carry_out(self, commands: Iterable[Any]) -> None:
        for command in commands:
            match command:
                case GiveVerdict((HeldPacket() as token, int(mark)), verdict):
                    ours = self.bits.of_verdict(verdict, self.slot.index)
                    full = None if ours is None else self.bits.merged(mark, ours)
                    self.queue.verdict(token, full, drop=verdict.value == "drop")
                case Dial(flow):
                    self.start(self.dial(flow))
                case CloseUnclaimed(flow):
                    self.ready.pop(flow).close() if flow in self.ready else None

    async def dial(self, flow: Flow) -> socket.socket | None:
        try:
            dialled = tproxy.dial(flow, self.bits)
            outcome = tproxy.outcome_of(await self.over(dialled))
        except OSError as error:
            outcome = tproxy.outcome_of_failed(error)
        tell("dialled", flow=str(flow), outcome=outcome.value)
        if outcome is DialOutcome.CONNECTED:
            self.ready[flow] = dialled
        self.carry_out(self.gate.dial_finished(flow, outcome, self.loop.time()))
        return dialled if outcome is DialOutcome.CONNECTED else None

    async def over(self, dialled: socket.socket) -> int:
        poll = select.poll()
        poll.register(dialled, select.POLLOUT)
        while True:
            await self.writable(dialled)
            for _, events in poll.poll(0):
                number = tproxy.connect_error(dialled, events)
                if number is not None:
                    return number

    async def writable(self, sock: socket.socket) -> None:
        done = self.loop.create_future()
        self.loop.add_writer(sock.fileno(), lambda: done.done() or done.set_result(None))
        await done
        self.loop.remove_writer(sock.fileno())

    async def accept(self, listener: socket.socket) -> None:
        while True:
            accepted, source = await self.loop.sock_accept(listener)
            flow = tproxy.flow_of_accepted(accepted, source)
            claim = self.gate.accepted(flow)
            tell("accepted", flow=str(flow), claim=claim.value)
            if claim is Claim.STRANGER:
                accepted.close()
            else:
                self.start(self.relay(flow, accepted, claim))

    async def relay(self, flow: Flow, accepted: socket.socket, claim: Claim) -> None:
        if claim is Claim.DIAL_NOW and await self.dial(flow) is None:
            accepted.close()
            return
        dialled = self.ready.pop(flow)
        await asyncio.gather(self.pump(accepted, dialled), self.pump(dialled, accepted))
        accepted.close()
        dialled.close()
        self.carry_out(self.gate.ended(flow))

    async def pump(self, come: socket.socket, go: socket.socket) -> None:
        try:
            while octets := await self.loop.sock_recv(come, 65536):
                await self.loop.sock_sendall(go, octets)
            go.shutdown(socket.SHUT_WR)
        except OSError:
            come.close()
            go.close()


async def main() -> None:
    worker = Worker(json.loads(sys.argv[1]))
    tell("ready", queue=worker.slot.queue)
    await asyncio.get_running_loop().create_future()


asyncio.run(main())
