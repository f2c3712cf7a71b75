"""Readable pseudonyms of keyed hashes: `k1_8a33e92c…` is the same two words and number on every screen and page.

A pseudonym is derived from the hash alone: it tells no more than the hash does, and needs no table. Files, JSON and
`--exact` have the hash. Does not belong here: the names behind the hashes (device/resolve.py).
"""

import re
from collections.abc import Callable, Iterable

_KEYED = re.compile(r"k1_([0-9a-f]{32})(?![0-9a-f])")
_PSEUDONYM = re.compile(r"[a-z]+-[a-z]+-\d{2,35}", re.ASCII)
_DIGITS = 2
_ALL_DIGITS = 35  # 128 bits less the 14 of the words: a pseudonym with all of them is the hash in other letters

# 128 of each: 7 bits of the hash choose a word. A changed or moved word renames everything that people have learned.
ADJECTIVES = (
    "able", "agile", "amber", "ample", "azure", "basic", "beige", "bold", "brave", "brief", "bright", "brisk",
    "broad", "bronze", "busy", "calm", "candid", "chief", "civil", "clean", "clear", "clever", "close", "cobalt",
    "cool", "coral", "cosy", "crisp", "cubic", "cyan", "daily", "dapper", "deep", "dense", "dry", "eager", "early",
    "easy", "elder", "equal", "even", "exact", "fair", "fast", "fine", "firm", "first", "fleet", "fond", "frank",
    "free", "fresh", "full", "gentle", "glad", "golden", "grand", "gray", "great", "green", "happy", "hardy", "hazel",
    "honest", "humble", "indigo", "inner", "ivory", "jade", "jolly", "joint", "keen", "kind", "large", "late",
    "lavish", "legal", "level", "light", "lilac", "linear", "little", "lively", "local", "long", "loud", "loyal",
    "lucid", "lunar", "magic", "main", "major", "maple", "mellow", "merry", "mild", "minor", "mint", "mobile",
    "modern", "modest", "native", "neat", "new", "nimble", "noble", "noted", "novel", "ochre", "olive", "open",
    "outer", "pale", "patient", "plain", "polite", "prime", "proud", "pure", "quick", "quiet", "rapid", "rare",
    "ready", "regal", "rich", "royal", "ruby",
)  # fmt: skip
NOUNS = (
    "acorn", "alder", "anchor", "apple", "arch", "aspen", "atlas", "badger", "bamboo", "barley", "basil", "bay",
    "beacon", "beaver", "birch", "bison", "bobbin", "brook", "bridge", "cabin", "cactus", "canal", "canoe", "canyon",
    "cedar", "cherry", "cliff", "clover", "cloud", "comet", "compass", "condor", "copper", "cove", "crane", "creek",
    "cricket", "crystal", "dahlia", "delta", "dolphin", "dove", "dune", "eagle", "elk", "ember", "falcon", "fern",
    "ferry", "fig", "finch", "fjord", "flint", "forest", "fox", "garden", "garnet", "gecko", "ginger", "glacier",
    "grove", "gull", "harbor", "hare", "harp", "hawk", "heron", "hill", "holly", "island", "ivy", "jasmine", "kayak",
    "kestrel", "lagoon", "lake", "lantern", "larch", "lark", "laurel", "lemon", "lily", "linden", "lotus", "lynx",
    "magnet", "mango", "marble", "marsh", "meadow", "melon", "meteor", "mill", "moss", "mountain", "nectar", "nutmeg",
    "oak", "oasis", "orbit", "orchid", "osprey", "otter", "owl", "palm", "panda", "pebble", "pepper", "pine",
    "planet", "plum", "pond", "poplar", "prairie", "quartz", "quail", "rabbit", "raven", "reef", "ridge", "river",
    "robin", "rocket", "sage", "sail", "salmon", "sparrow", "spruce",
)  # fmt: skip


def pseudonym(keyed: str, digits: int = _DIGITS) -> str:
    """The pseudonym of one keyed hash, such as `amber-otter-42`; more digits begin with the same ones."""
    number = int(keyed.removeprefix("k1_"), 16)
    number, adjective = divmod(number, len(ADJECTIVES))
    number, noun = divmod(number, len(NOUNS))
    decimals = f"{number:0{_ALL_DIGITS}d}"[::-1]  # the last decimals first: they are the evenly distributed ones
    return f"{ADJECTIVES[adjective]}-{NOUNS[noun]}-{decimals[:digits]}"


def is_pseudonym(text: str) -> bool:
    """Whether a text is made like a pseudonym, of our words: a model may be called `claude-opus-45`."""
    adjective, noun, _ = [*text.split("-"), "", "", ""][:3]
    return _PSEUDONYM.fullmatch(text) is not None and adjective in ADJECTIVES and noun in NOUNS


def pseudonym_of(text: str, keyed: str) -> bool:
    """Whether a text is the pseudonym of a keyed hash, of whatever length its number is."""
    is_both = is_pseudonym(text) and _KEYED.fullmatch(keyed) is not None
    return is_both and text == pseudonym(keyed, len(text.rpartition("-")[2]))


def renaming(texts: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces the keyed hashes in a text by pseudonyms that differ where the hashes of `texts` do.

    Where two hashes of `texts` would have one pseudonym, both get a longer number.
    """
    same: dict[str, set[str]] = {}
    for text in texts:
        for match in _KEYED.finditer(text):
            same.setdefault(pseudonym(match[0]), set()).add(match[0])
    longer = {
        keyed: next(
            length
            for length in range(_DIGITS, _ALL_DIGITS + 1)
            if len({pseudonym(other, length) for other in group}) == len(group)
        )
        for group in same.values()
        if len(group) > 1
        for keyed in group
    }

    def rename(text: str) -> str:
        return _KEYED.sub(lambda match: pseudonym(match[0], longer.get(match[0], _DIGITS)), text)

    return rename
