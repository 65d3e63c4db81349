"""A line of progress for work that takes a while before training begins."""

import sys
import time


class Progress:
    """Shows how many pictures are done: on a terminal one line that is written over, else a line every ten seconds.

    Args:
        what: such as "listing pictures".
        total: how many there are; None where that is not known yet.
        verbose: 0 shows nothing.
    """

    def __init__(self, what, total=None, verbose=1):
        self.what, self.total, self.verbose = what, total, verbose
        self._terminal = sys.stderr.isatty()
        self._began = self._shown = time.monotonic()
        self._any = False

    def __call__(self, done):
        if not self.verbose or done % 64:
            return
        now = time.monotonic()
        if now - self._shown < (0.2 if self._terminal else 10.0):
            return
        self._shown, self._any = now, True
        of = "" if self.total is None else f" of {self.total:,}"
        rate = done / max(now - self._began, 1e-9)
        line = f"{self.what}: {done:,}{of}, {rate:,.0f} a second"
        end = "\r" if self._terminal else "\n"
        print(line.ljust(78) if self._terminal else line, end=end, file=sys.stderr, flush=True)

    def close(self):
        """Clears the line."""
        if self._any and self._terminal:
            print(" " * 78, end="\r", file=sys.stderr, flush=True)
