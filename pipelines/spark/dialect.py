"""Compiled DuckDB SQL as Spark SQL: sqlglot's translation, and rules for what it leaves as it is.

Nothing of Spark is imported: tests translate every statement of the project without it. Does not belong here: functions
that have another name or meaning there (the `spark__` macros of dbt_project/macros/engine.sql).
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import sqlglot
from sqlglot import exp

# A window of these takes no frame in Spark: they look at rows, not at a range of them.
FRAMELESS = (exp.Lag, exp.Lead, exp.RowNumber, exp.Rank, exp.DenseRank)


# A query that reads more relations than this, with every common table expression written out at each of its uses, is
# run in parts: Spark writes them out, and plans of ten thousand relations take minutes and all of its memory.
MOST_READ = 24


def to_spark(sql: str) -> str:
    """One query of DuckDB as one of Spark.

    Raises sqlglot.errors.SqlglotError for what is no query of DuckDB, and for what has no translation.
    """
    return _translated(_parsed(sql))


class Part(NamedTuple):
    """A query whose result is the table `table`, or the whole result where that is empty.

    `step`: what the table is made of is only the beginning of a recursion. `step` is run on the rows that were added
    last, which it finds in `table` + `LAST`, and its own are added, until there are none.
    """

    table: str
    query: str
    step: str = ""


LAST = "__last"


def in_parts(sql: str, prefix: str) -> list[Part]:
    """The same as queries to run one after the other, the whole result last. Raises as `to_spark`.

    A common table expression that is used several times becomes the table `prefix` + its name where `MOST_READ` asks
    for it; so does a recursion that Spark refuses.
    """
    tree = _parsed(sql)
    query = _Query(tree)
    shared = query.shared() if query.relations_read() > MOST_READ else set()
    tables = {name: f"{prefix}{name}" for name in query.ctes if name in shared or name in query.refused()}
    if not tables:
        return [Part("", _translated(tree))]
    parts = []
    for name, table in tables.items():
        part = query.ctes[name].this
        if name in query.refused():
            step = _translated(query.alone(part.expression, tables | {name: f"{table}{LAST}"}))
            parts.append(Part(table, _translated(query.alone(part.this, tables)), step))
        else:
            parts.append(Part(table, _translated(query.alone(part, tables))))
    return [*parts, Part("", _translated(query.alone(query.result, tables)))]


def _parsed(sql: str) -> exp.Query:
    tree = sqlglot.parse_one(sql, read="duckdb")
    if not isinstance(tree, exp.Query):
        raise sqlglot.errors.ParseError("only queries are translated")
    return tree


def _translated(tree: exp.Expr) -> str:
    _windows(tree)
    _replaced_columns(tree)
    return str(_wide_integers(tree).sql(dialect="spark", unsupported_level=sqlglot.ErrorLevel.RAISE))


class _Query:
    """A query and its common table expressions, each of which stands behind those that it uses."""

    def __init__(self, tree: exp.Query) -> None:
        self.ctes: dict[str, exp.CTE] = {cte.alias: cte for cte in tree.ctes}
        self.result = tree.copy()
        self.result.set("with_", None)
        self.is_recursive = bool(tree.args["with_"].args.get("recursive")) if self.ctes else False
        self.used = {name: self._uses(cte.this) for name, cte in self.ctes.items()}

    def _uses(self, part: exp.Expr) -> Counter[str]:
        return Counter(table.name for table in part.find_all(exp.Table) if not table.db and table.name in self.ctes)

    def relations_read(self) -> int:
        """How many relations are read if every common table expression is written out where it is used."""
        size: dict[str, int] = {}

        def of(part: exp.Expr) -> int:
            own = sum(1 for table in part.find_all(exp.Table) if table.db)
            return own + sum(size.get(name, 1) * count for name, count in self._uses(part).items())

        for name, cte in self.ctes.items():
            size[name] = of(cte.this)
        return of(self.result)

    def shared(self) -> set[str]:
        """What is used several times, and is no recursion."""
        times = sum(self.used.values(), self._uses(self.result))
        return {name for name in self.ctes if times[name] > 1 and name not in self.used[name]}

    def refused(self) -> set[str]:
        """Recursions with a window over their own rows."""
        return {
            name
            for name, cte in self.ctes.items()
            if name in self.used[name] and isinstance(cte.this, exp.Union) and cte.this.expression.find(exp.Window)
        }

    def alone(self, part: exp.Expr, tables: Mapping[str, str]) -> exp.Expr:
        """A part with the common table expressions that it needs, and tables in the place of shared ones."""
        part = part.copy()
        needed: set[str] = set()
        waiting = list(self._uses(part))
        while waiting:
            name = waiting.pop()
            if name not in needed and name not in tables:
                needed.add(name)
                waiting += self.used[name]
        own = part.args.get("with_")
        kept = [cte.copy() for name, cte in self.ctes.items() if name in needed]
        if kept:
            inner = own.expressions if own is not None else []
            part.set("with_", exp.With(expressions=[*kept, *inner], recursive=self.is_recursive))
        for table in list(part.find_all(exp.Table)):
            if not table.db and table.name in tables:
                place = exp.to_table(tables[table.name], dialect="spark", alias=table.alias_or_name)
                place.set("joins", table.args.get("joins"))
                table.replace(place)
        return part


def with_types(sql: str, types: Mapping[str, str]) -> str:
    """A translated query whose columns have the DuckDB types of a contract, in its order."""
    columns = ",\n    ".join(
        f"cast({_quoted(name)} as {_wide_integers(exp.DataType.build(type_, 'duckdb')).sql(dialect='spark')})"
        f" as {_quoted(name)}"
        for name, type_ in types.items()
    )
    return f"select\n    {columns}\nfrom (\n{sql}\n) as model"


def _quoted(name: str) -> str:
    return str(exp.to_identifier(name, quoted=True).sql(dialect="spark"))


def _wide_integers(tree: exp.Expr) -> exp.Expr:
    """HUGEINT is the widest integer here, DECIMAL(38, 0) there."""

    for type_ in list(tree.find_all(exp.DataType)):
        if type_.this == exp.DataType.Type.INT128:
            type_.replace(exp.DataType.build("DECIMAL(38, 0)", "spark"))
    return tree


def _replaced_columns(tree: exp.Expr) -> None:
    """Spark's star has no REPLACE: the columns are left out of the star and stand behind it."""
    for star in list(tree.find_all(exp.Star)):
        replaced = star.args.get("replace")
        if not replaced:
            continue
        item = star.parent if isinstance(star.parent, exp.Column) else star
        select = item.parent
        if not isinstance(select, exp.Select):
            raise sqlglot.errors.UnsupportedError("a star with REPLACE stands in a list of columns only")
        star.set("replace", None)
        star.set("except_", [*(star.args.get("except_") or []), *(exp.to_identifier(one.alias) for one in replaced)])
        place = select.expressions.index(item) + 1
        select.set("expressions", [*select.expressions[:place], *replaced, *select.expressions[place:]])


def _windows(tree: exp.Expr) -> None:
    """Spark has no FILTER of a window's aggregate, and no frame of a window's function."""
    for window in list(tree.find_all(exp.Window)):
        function = window.this
        if isinstance(function, exp.Filter):
            window.set("this", _filtered(function))
        elif isinstance(_bare(function), FRAMELESS):
            _without_frame(window)


def _bare(function: exp.Expr) -> exp.Expr:
    return function.this if isinstance(function, exp.IgnoreNulls | exp.RespectNulls) else function


def _filtered(function: exp.Filter) -> exp.Expr:
    """An aggregate of some rows as one of values that are NULL in the others."""
    aggregate, condition = function.this, function.expression.this
    value = exp.Literal.number(1) if isinstance(aggregate.this, exp.Star) else aggregate.this
    aggregate.set("this", exp.Case(ifs=[exp.If(this=condition.copy(), true=value.copy())]))
    return aggregate


def _without_frame(window: exp.Window) -> None:
    named = window.args.get("alias")
    if named is not None:
        select = window.find_ancestor(exp.Select)
        definitions = (select.args.get("windows") or []) if select is not None else []
        for definition in definitions:
            if definition.name == named.name and definition.args.get("spec") is not None:
                window.set("alias", None)
                window.set("over", "OVER")
                for part in ("partition_by", "order"):
                    window.set(part, definition.args.get(part) and _copied(definition.args[part]))
    window.set("spec", None)


def _copied(part: exp.Expr | list[exp.Expr]) -> exp.Expr | list[exp.Expr]:
    return [one.copy() for one in part] if isinstance(part, list) else part.copy()
