"""Hide what torch says of its own code while it captures, also where several threads capture at once."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Quiet:
    """Hide the warnings of torch's own code from the first who comes in to the last who leaves.

    The filters of warnings belong to the whole process, and ``catch_warnings`` puts back those that it has found. Of
    two threads that are inside of one at the same time, the last to leave would put back what hides warnings.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._found = warnings.catch_warnings()

    def __enter__(self) -> None:
        """Hide them."""
        with self._lock:
            if self._inside == 0:
                self._found = warnings.catch_warnings()
                self._found.__enter__()
                # Dynamo hides the first itself, but not where warnings are errors.
                warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
                warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
            self._inside += 1

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put back the filters that were found, if nobody else is inside."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._found.__exit__(exc_type, error, traceback)


quiet = Quiet()
