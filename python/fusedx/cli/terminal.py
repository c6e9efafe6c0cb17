"""Results as a table on a terminal, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusedx.cli.text import fit, printable, width
from fusedx.results import Run
from fusedx.results.rows import Row

if TYPE_CHECKING:
    from rich.console import Console

_LEAST_SOURCE = 16


class TerminalWriter:
    """A ``Writer`` (see fusedx.results) for people: one line an image, a failed one with its reason and, below, its message.

    With several draws also their agreement and the standard error of the label's score; with "auto" how many there were, and a word
    where the label could not be told from the noise.
    """

    def __init__(self, console: Console, run: Run) -> None:
        self._console = console
        self._run = run
        self._label = min(24, max(width(printable(name)) for name in (*run.classes, "prior says")))
        self._several = run.draws_setting != "1"
        self._auto = not run.draws_setting.isdecimal()
        self._also = run.topk > 1  # instead of the prior, for which there is no room then
        taken = self._label + 9 + 16 * self._several + 18 * self._auto + (run.topk - 1 if self._also else 1) * (self._label + 9)
        self._source = max(_LEAST_SOURCE, min(60, console.width - taken))
        self._print(self._line("source", "label", "p", "prior says", "p", "stable", "\u00b1score", "draws", "", "then"), "bold")

    def write(self, row: Row) -> None:
        source = printable(row["source"])
        if row["status"] == "failed":
            self._print(f"{fit(source, self._source, keep_end=True)}  failed: {row['reason']}", "red")
            self._print(f"    {printable(row['message'])}", "dim")
            return
        name, prior = row["label"], max(self._run.classes, key=lambda c: row[f"prior:{c}"])
        ranks = range(2, self._run.topk + 1)
        also = ", ".join(f"{printable(row[f'top{k}'])} {row[f'top{k}_p']:.3f}" for k in ranks)
        error = row[f"se:{name}"]
        line = self._line(
            source, name, f"{row[f'p:{name}']:.3f}", prior, f"{row[f'prior:{prior}']:.3f}",
            f"{row['stability']:.0%}", "" if error is None else f"{error:.3f}", str(row["draws"]), "undecided" if row["undecided"] else "",
            also,
        )  # fmt: skip
        self._print(line, None)

    def close(self) -> None:
        pass

    def _line(
        self, source: str, label: str, p: str, prior: str, prior_p: str, stability: str, error: str, draws: str, undecided: str, also: str
    ) -> str:
        cells = [fit(source, self._source, keep_end=True)]
        for name, value in ((label, p),) if self._also else ((label, p), (prior, prior_p)):
            cells.append(f"{fit(printable(name), self._label)} {value:>6}")
        if self._several:
            cells += [f"{stability:>6}", f"{error:>6}"]
        if self._auto:
            cells += [f"{draws:>5}", f"{undecided:<9}"]
        return "  ".join([*cells, also if self._also else ""]).rstrip()

    def _print(self, line: str, style: str | None) -> None:
        from rich.text import Text

        self._console.print(Text(line, style=style or ""), soft_wrap=True)
