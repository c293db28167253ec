"""Names that programs import from here. They live in the package itself."""

from execnet._core import XSpec

__all__ = ["XSpec"]
