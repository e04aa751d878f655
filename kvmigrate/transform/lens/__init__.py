"""The lens: a mapping compiled into functions from an item to its rows and back."""

from kvmigrate.transform.lens.lens import Lens, compile_mapping
from kvmigrate.transform.lens.page import Accepted, Left, PageRows

__all__ = ["Accepted", "Left", "Lens", "PageRows", "compile_mapping"]
