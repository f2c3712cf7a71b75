"""`apiary agent list`, `fire` and `note`: the registry of agents, and the book of what people decided about them.

Does not belong here: the book itself (warehouse/operator_actions.py), the marts.
"""

import argparse
import getpass
import re
from typing import Any

from pipelines.commands.tables import show
from pipelines.commands.terminal import Shared, Stop, note, say
from pipelines.contract.numbers import pluralize
from pipelines.contract.pseudonyms import is_pseudonym, pseudonym_of
from pipelines.home import Home

# Columns of the registry that a narrow terminal does without, in this order.
OPTIONAL = ("version", "fires", "sessions", "open runs", "last seen at", "model")
REASONS = ["derailed", "obstinate", "dumb", "unresponsive", "corrupted"]


def _list(options: argparse.Namespace) -> int:
    from pipelines.warehouse import operator_actions, reading

    with reading.connect(Home.from_environment().published) as connection:
        rows = operator_actions.agents(connection, tenant=options.tenant)
    show(rows, nothing="no agents", is_json=options.json, optional=OPTIONAL)
    return 0


def _act(options: argparse.Namespace) -> int:
    from pipelines.warehouse import operator_actions

    tenant = _tenant(options)
    agent = _agent(options.agent, tenant)
    actor = options.actor or re.sub(r"[^a-z0-9_-]", "-", getpass.getuser().lower()).lstrip("-_")
    made = operator_actions.record(
        Home.from_environment().operator_actions, action=options.action, tenant=tenant,
        agent=agent, reason=options.reason, actor=actor, session=options.session,
    )  # fmt: skip
    said = "is written down as fired" if made.action == "fire" else "has a note"
    say(f"{made.agent_id} of {made.tenant_id} {said} ({made.reason}, by {made.actor_id})")
    say("`apiary run` brings what is known of the days before and after (mart_operator_actions)")
    if made.action == "fire":
        say("nothing here stops an agent: stop it in its runtime")
    return 0


def _agent(named: str, tenant: str) -> str:
    """The agent that was named as the registry shows it: with a pseudonym for a keyed hash."""
    from pipelines.warehouse import operator_actions, reading

    role, _, name = named.partition(":")
    published = Home.from_environment().published
    if not is_pseudonym(name) and not (published / "current").exists():
        return named
    with reading.connect(published) as connection:
        known = [str(row["agent"]) for row in operator_actions.agents(connection, tenant=tenant)]
    if not is_pseudonym(name):
        if named not in known:
            note(f"no published data of {tenant} has an agent {named}: `apiary agent list --tenant {tenant}`")
        return named
    found = [agent for agent in known if pseudonym_of(name, agent.removeprefix(f"{role}:"))]
    if len(found) != 1:
        raise Stop(2, f"{pluralize(len(found), 'agent is', 'agents are')} called {named}: `apiary agent list --json`")
    return found[0]


def _tenant(options: argparse.Namespace) -> str:
    """The tenant that was named, or the one this device is enrolled with."""
    if options.tenant:
        return str(options.tenant)
    from pipelines.device import enrolment

    enrolled = enrolment.load(Home.from_environment())
    if enrolled is None:
        raise Stop(2, "whose agent? name its tenant with --tenant")
    return str(enrolled.tenant)


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary agent`."""
    text = "list agents; write down what people decided about one"
    commands = group.add_parser("agent", help=text).add_subparsers(required=True, metavar="COMMAND")
    listed = shared.add(commands, "list", "show the registry of agents from the published data", _list)
    listed.add_argument("--tenant", metavar="T", help="of one tenant only")
    listed.add_argument("--json", action="store_true", help="one array on standard output")
    for action, told in (("fire", "write down that an agent was fired"), ("note", "write down a fault of an agent")):
        command = shared.add(commands, action, told, _act)
        command.add_argument(
            "--agent", required=True, metavar="A", help="as `apiary agent list` shows it: queen:queen_growth"
        )
        command.add_argument("--reason", required=True, choices=REASONS)
        command.add_argument("--tenant", metavar="T", help="whose agent; by default that of this device")
        command.add_argument("--session", metavar="S", help="the session that made you act")
        command.add_argument("--actor", metavar="U", help="who decided; by default this user")
        command.set_defaults(action=action)
