"""What checks found: a verdict each, and the tables that say so."""

import dataclasses

import keras

VERDICTS = ("passed", "failed", "inconclusive", "skipped")


@dataclasses.dataclass
class CheckResult:
    """What one check found.

    Attributes:
        check: its name.
        verdict: "passed", "failed", "inconclusive" or "skipped".
        detail: what differs, or why it is skipped; empty where it passed.
        seconds: how long it took.
        error: the exception, where there was one in this process.
    """

    check: str
    verdict: str
    detail: str = ""
    seconds: float = 0.0
    error: Exception | None = dataclasses.field(default=None, repr=False, compare=False)

    def __str__(self):
        return f"{self.verdict} ({self.seconds:.1f} s)"


@dataclasses.dataclass
class CheckReport:
    """What the checks of one method found on one backend. It prints as a table.

    Attributes:
        method: its name.
        results: a list of `CheckResult`, in the order in which the checks ran.
        backend: the backend on which they ran.
    """

    method: str
    results: list = dataclasses.field(default_factory=list)
    backend: str = dataclasses.field(default_factory=keras.backend.backend)

    @property
    def passed(self):
        """Names of the checks that passed."""
        return list(self._with("passed"))

    @property
    def failed(self):
        """What failed: a dict of check to what differs."""
        return self._with("failed")

    @property
    def inconclusive(self):
        """What this network can't tell, a dict of check to why. An inconclusive check has not passed."""
        return self._with("inconclusive")

    @property
    def skipped(self):
        """What this process can't check: a dict of check to the reason."""
        return self._with("skipped")

    def _with(self, verdict):
        return {result.check: result.detail for result in self.results if result.verdict == verdict}

    def __str__(self):
        cells = {result.check: {self.backend: result} for result in self.results}
        return "\n".join([f"{self.method}: {counts(self.results)}", table(cells, [self.backend]), *self.details()])

    def details(self):
        """A line for each check that did not pass."""
        return [f"{r.verdict}: {r.check}: {r.detail}" for r in self.results if r.verdict != "passed"]


def counts(results):
    """`"12 passed, 1 skipped"`."""
    numbers = {verdict: sum(result.verdict == verdict for result in results) for verdict in VERDICTS}
    return ", ".join(f"{number} {verdict}" for verdict, number in numbers.items() if number) or "no checks"


def table(cells, backends):
    """Lines of a table: a row per check, a column of verdicts and seconds per backend.

    Args:
        cells: `{check: {backend: CheckResult}}`.
        backends: the columns.
    """
    rows = [["check", *backends]]
    for check, found in cells.items():
        rows.append([check, *(str(found[backend]) if backend in found else "" for backend in backends)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
