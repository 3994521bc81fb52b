"""Asks the prover SPASS (Debian package `spass`) whether a query's goal follows from its rules.

It refutes or saturates: "Proof found" says that the goal follows, "Completion found" that it does not.
Anything else is no answer, and told as such. Counterpart: `queries`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final

from tests.model.asking import Query, Verdict
from tests.model.gateways import rules

PROVER: Final = "SPASS"
STRATEGIES: Final = (("-Sorts=0", 300), ("-Select=2", 300))
"""Options and seconds; the second is for what the first gives up. Most queries need under one."""

_HEADER: Final = """\
begin_problem(Nightmail).
list_of_descriptions.
name({{*{claim}*}}).
author({{*Nightmail*}}).
status(unknown).
description({{*handshake*}}).
end_of_list.
list_of_symbols.
functions[{functions}].
predicates[{predicates}].
end_of_list.
"""


def is_there() -> bool:
    return shutil.which(PROVER) is not None


def ask(query: Query) -> str:
    """A verdict's word, or the prover's own words where it gave none."""
    said = ""
    with tempfile.NamedTemporaryFile("w", suffix=".dfg") as file:
        file.write(problem(query))
        file.flush()
        own = [(query.option, STRATEGIES[0][1])] * bool(query.option)
        for option, seconds in (*own, *STRATEGIES):
            command = [
                PROVER,
                "-PGiven=0",
                "-PProblem=0",
                *option.split(),
                f"-TimeLimit={seconds}",
                file.name,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if "SPASS beiseite: Completion found" in done.stdout:
                return str(Verdict.HOLDS.value)
            if "SPASS beiseite: Proof found" in done.stdout:
                honest = query.expected is Verdict.REACHED
                return str(Verdict.REACHED.value if honest else Verdict.ATTACK.value)
            said = " ".join((done.stdout + done.stderr).split())[:200]
    return said or "no answer"


def problem(query: Query) -> str:
    """The query in SPASS's DFG syntax: the rules as clauses, and the goal denied."""
    lines = [*dict.fromkeys(rules(query.world, query.goal)), f"{query.goal} ->"]
    arities = dict(symbol for line in lines for symbol in symbols(line))
    heads = {head for line in lines for head in re.findall(r"(?:^|& |-> )\s*([a-z]\w*)", line)}
    functions = ",".join(f"({name},{arity})" for name, arity in sorted(arities.items()) if name not in heads)
    predicates = ",".join(f"({name},{arity})" for name, arity in sorted(arities.items()) if name in heads)
    *axioms, denied = map(_clause, lines)
    header = _HEADER.format(claim=query.claim, functions=functions, predicates=predicates)
    return header + _list("axioms", axioms) + _list("conjectures", [denied]) + "end_problem.\n"


def symbols(rule: str) -> Iterator[tuple[str, int]]:
    """Every symbol of a rule with its number of arguments."""
    for found in re.finditer(r"\b([a-z]\w*)(\(?)", rule):
        depth = arity = len(found.group(2))
        for char in rule[found.end() :]:
            if not depth:
                break
            depth += (char == "(") - (char == ")")
            arity += char == "," and depth == 1
        yield found.group(1), arity


def _clause(rule: str) -> str:
    body, head = (side.strip() for side in rule.split("->"))
    literals = [f"not({fact.strip()})" for fact in body.split(" & ") if fact] + [head] * bool(head)
    variables = ",".join(sorted(set(re.findall(r"\b[A-Z]\w*", rule))))
    text = f"or({','.join(literals)})"
    return f"clause({f'forall([{variables}],{text})' if variables else text},c)."


def _list(name: str, clauses: Sequence[str]) -> str:
    return "\n".join((f"list_of_clauses({name}, cnf).", *clauses, "end_of_list.\n"))
