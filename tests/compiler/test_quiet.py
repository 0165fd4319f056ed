"""What hides the warnings of torch's own code."""

from __future__ import annotations

import warnings

from torchsystem.compiler.quiet import Quiet


def test_the_last_to_leave_puts_back_what_the_first_found() -> None:
    """The filters of the process are as before, in whichever order several threads come and go."""
    found, quiet = list(warnings.filters), Quiet()
    quiet.__enter__()
    hiding = list(warnings.filters)
    quiet.__enter__()
    quiet.__exit__(None, None, None)
    assert warnings.filters == hiding
    quiet.__exit__(None, None, None)
    assert warnings.filters == found != hiding


def test_it_can_be_entered_again() -> None:
    """One object serves all captures of a process, one after the other."""
    found, quiet = list(warnings.filters), Quiet()
    for _ in range(2):
        with quiet:
            warnings.warn_explicit("old", DeprecationWarning, "torch/a.py", 1, module="torch.a")
        assert warnings.filters == found
