"""Batches that are read before they are asked for, by threads, within a bound of bytes.

Threads and not processes: Pillow gives the interpreter's lock away while it decodes, so that threads decode about as
fast as processes that write into shared memory, and faster than processes that send pixels (docs/benchmarks.md). And
what they keep (`keras_ssl.data.cache`) is there for all.
"""

import concurrent.futures
import contextlib
import threading

from keras_ssl import backend

# What is read ahead holds at most this, or one batch where a batch is larger.
MAX_BYTES = 256 * 2**20
# More would only be in memory: they are read in order, and each is ready long before its turn.
_MOST_BATCHES = 8
# So that a disk or a network that is slow to answer is asked for several pictures at a time, on a single core too.
_FEWEST_THREADS = 4
# Beyond, the parts of reading that hold the interpreter's lock are the limit.
_MOST_THREADS = 32


def number_of_threads():
    """One a core that this process may use, but 4 at least and 32 at most."""
    return min(max(backend.number_of_cores(), _FEWEST_THREADS), _MOST_THREADS)


@contextlib.contextmanager
def readers(workers=None):
    """Threads that live within it: gives `submit(function, *arguments)`, which returns a future.

    At its end, also by an error or Ctrl-C, what was not begun is dropped, and what was is waited for: a few pictures.

    Args:
        workers: how many; None for `number_of_threads()`.
    """
    pool = concurrent.futures.ThreadPoolExecutor(workers or number_of_threads(), "keras_ssl_reader")
    try:
        yield pool.submit
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Ahead:
    """Batches by their position, of which the next ones are begun when one is asked for.

    Args:
        start: a function of a position that begins to read a batch, and returns a function that waits for it.
        bytes_of_batch: in memory.
        begun: batches that were read already, functions that give them, by position.
        max_bytes: of what is read ahead.
    """

    def __init__(self, start, bytes_of_batch, begun=None, max_bytes=MAX_BYTES):
        self._start = start
        self.count = min(max(1, max_bytes // max(1, bytes_of_batch)), _MOST_BATCHES)
        self._begun = dict(begun or {})
        self._lock = threading.Lock()
        self._closed = False

    def close(self):
        """Begins nothing more: a batch that is asked for from now on is cancelled, as those are that wait."""
        with self._lock:
            self._closed = True

    def batch(self, position, end):
        """The batch at a position; those after it are begun.

        Args:
            end: the first position that will not be asked for.

        Raises:
            concurrent.futures.CancelledError: after `close`, or where the threads ended while it was waited for.
        """
        with self._lock:
            if self._closed:
                raise concurrent.futures.CancelledError("The batches ended with the `reading_ahead` that read them.")
            wait = self._begun.pop(position, None) or self._start(position)
            following = range(position + 1, min(position + 1 + self.count, end))
            # One that is not near is of an epoch that ended early: it is not waited for.
            self._begun = {place: self._begun.get(place) or self._start(place) for place in following}
        return wait()
