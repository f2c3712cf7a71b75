"""Names of models as people read them: a pseudonym on a screen is typed back, and its hash is what books hold.

Does not belong here: making pseudonyms (contract/pseudonyms.py).
"""

from collections.abc import Iterable

from pipelines.commands import terminal
from pipelines.commands.terminal import Stop
from pipelines.contract.numbers import pluralize
from pipelines.contract.pseudonyms import is_pseudonym, pseudonym_of, renaming
from pipelines.home import Home


def say(*texts: object) -> None:
    """Print sentences as `terminal.say` does, with pseudonyms for the keyed hashes in them, as in tables."""
    terminal.say(*shown(map(str, texts)))


def shown(texts: Iterable[str]) -> list[str]:
    """Texts with pseudonyms for the keyed hashes in them."""
    texts = list(texts)
    return list(map(renaming(texts), texts))


def model_named(text: str) -> str:
    """The model that was named: of a pseudonym the keyed hash that it stands for, any other name as it is.

    Raises Stop if no used model, or more than one, has that pseudonym, NothingPublishedError.
    """
    from pipelines.warehouse import reading

    if not is_pseudonym(text):
        return text
    with reading.connect(Home.from_environment().published) as connection:
        rows = connection.execute(
            "SELECT DISTINCT model FROM agg_usage_session_daily WHERE model LIKE 'k1#_%' ESCAPE '#' ORDER BY 1"
        ).fetchall()
    found = [model for (model,) in rows if pseudonym_of(text, model)]
    if len(found) == 1:
        return str(found[0])
    called = pluralize(len(found), "used model is", "used models are")
    raise Stop(2, f"{called} called {text}: `apiary usage --by model --exact` shows the hashes")
