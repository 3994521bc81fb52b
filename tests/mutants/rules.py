"""Checks of who keeps the rules in the kernel, and of whom the gate needs.

Counterpart: docs/architecture.md, "What we put into the kernel".
"""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, mutants_in

RULES: Final[tuple[Mutant, ...]] = mutants_in(
    {
        "gateway/runtime/supervisor/rulekeeper.py": [
            (
                "rules that cannot be mended while `nightmail down` takes them out are not put back",
                "            if self._said().counts is Wanted.UP:\n",
                "            if True:\n",
            ),
            (
                "rules that `nightmail down` takes out ring for nothing",
                "        if mended.gone and self._said().counts is Wanted.UP:",
                "        if mended.gone:",
            ),
            (
                "a `down` that was said and taken back between two looks rings for nothing",
                "        if self._taken_down_lately():\n            return\n",
                "",
            ),
            (
                "rules that a `down` took out have no gate to switch",
                "            if self._taken_down_lately():\n                self._look()\n",
                "            pass\n",
            ),
            (
                "no command is at the rules while the daemon looks at them",
                "            with rules_lock.held(self._config, limits.RULES_HAND_SECONDS):\n",
                "            with contextlib.nullcontext():\n",
            ),
            (
                "what `nightmail down` has left goes at once",
                "        except EnvironmentFailureError:\n            self._kernel.remove()",
                "        except EnvironmentFailureError:\n            pass",
            ),
            (
                "in other VLANs the gate takes nothing, whoever begins to serve",
                "        live = [] if self._passes or self._closed else self._live()\n",
                "        live = [] if self._closed else self._live()\n",
            ),
            (
                "a gate that is closed before the rules go takes nothing, whoever begins to serve",
                "        live = [] if self._passes or self._closed else self._live()\n",
                "        live = [] if self._passes else self._live()\n",
            ),
            (
                "no session is open any more when `nightmail down` takes the rules out",
                "        reset = await self._empty()\n",
                "        reset = 0\n",
            ),
            (
                "rules that are wanted again while sessions end stay",
                "        if self._read_word().counts is Wanted.UP:\n            self._open_the_gate()\n",
                "        if False:\n            self._open_the_gate()\n",
            ),
            (
                "rules that a `down` has not taken out at a reload are known to stand",
                "        if self.wanted is Wanted.UP or standing:\n",
                "        if self.wanted is Wanted.UP:\n",
            ),
            (
                "rules that a reload found with a closed gate are put in anew where they are wanted again",
                "        if self._passes or not self.stands or not self._kernel.standing:\n",
                "        if self._passes or not self.stands:\n",
            ),
            (
                "a reload in the midst of a `down` sends nobody anything before it goes on with that",
                "        if self.wanted is Wanted.DOWN and self.stands:\n",
                "        if False:\n",
            ),
            (
                "as long as the gate cannot be closed the rules stay",
                "            self._closed = not kernel.gate_counts()\n",
                "            self._closed = True\n",
            ),
            (
                "rules that stand are not taken away for ones that would be refused",
                "            raise EnvironmentFailureError(refusal)\n",
                "            pass\n",
            ),
        ],
        "gateway/intercept/kernel/lifts.py": [
            (
                "a bridge whose ports are in other VLANs than ours is refused",
                "    vlans.require(ip, bridge, links, lift)\n",
                "",
            ),
        ],
        "gateway/intercept/placements/bridge.py": [
            (
                "what comes in another VLAN than ours passes, from that moment on",
                "(str(config.untagged_vlan),) if config.vlan_asked else ()",
                "()",
            ),
        ],
        "gateway/intercept/kernel/iptables.py": [
            (
                "rules that go while they are put back are looked at again",
                "                if not tries_left:\n                    raise\n",
                "                raise\n",
            ),
        ],
        "gateway/intercept/roles.py": [
            (
                "a SYN without a source makes nobody dial in the gateway's own name",
                "    if parsed.is_unspecified or ",
                "    if ",
            ),
        ],
        "gateway/runtime/worker/intake.py": [
            (
                "who has slept for long forgets the SYNs that have come meanwhile",
                "        if long:\n            self._discard_queue()\n",
                "",
            ),
            (
                "who has slept gives up dials for clients that have sent their SYNs again",
                "(long or not self._gate.is_held_since(flow, young))",
                "long",
            ),
        ],
        "gateway/runtime/worker/dials.py": [
            (
                "mail of a client whose port is taken here goes by another one",
                "        return self._dial_from_any_port(flow)\n\n    def _dial_from_any_port",
                "            raise\n\n    def _dial_from_any_port",
            ),
            (
                "what keeps the gateway from dialling rings",
                "            self._asker.kept_from_dialling(flow, number)\n",
                "            pass\n",
            ),
        ],
        "gateway/runtime/worker/sessions.py": [
            (
                "a route that swallows what is for a peer rings",
                "        if outcome is DialOutcome.SWALLOWED and ",
                "        if False and ",
            ),
        ],
        "gateway/intercept/kernel/__init__.py": [
            (
                "the gate needs the workers that it sends SYNs to",
                "    serving = [slots[queue] for queue in queues_served(live) if queue in slots]\n",
                "    serving = []\n",
            ),
        ],
        "gateway/intercept/kernel/nft.py": [
            (
                "whom the gate needs follows the gate",
                '            run(["nft", "-f", "-"], render_vouching(self.vouching))\n',
                "            pass\n",
            ),
            (
                "whom the gate needs stands in a table that is put back",
                "render_vouching(self.vouching, alive=self.vouching.values(), seconds=self.vouched_seconds)",
                '""',
            ),
            (
                "a table is tried where nobody's packets wait",
                'start([_UNSHARE, "--net", *_TRIAL])',
                "start(_TRIAL)",
            ),
        ],
    }
)
