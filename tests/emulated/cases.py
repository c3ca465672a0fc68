"""All that runs on an emulated GPU, by name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.emulated.anywhere import ANYWHERE
from tests.emulated.devices import DEVICES
from tests.emulated.in_captures import IN_CAPTURE
from tests.emulated.lives import LIVES
from tests.emulated.sessions import METHODS, agree

if TYPE_CHECKING:
    from collections.abc import Callable

CASES: dict[str, Callable[[], None]] = {
    **{f"in a capture: {name}": case for name, case in IN_CAPTURE.items()},
    **{f"anywhere: {name}": case for name, case in ANYWHERE.items()},
    **{f"a session: {name}": partial(agree, name) for name in METHODS},
    **DEVICES,
    **{f"lives: {name}": case for name, case in LIVES.items()},
}
