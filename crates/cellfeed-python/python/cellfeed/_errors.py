"""Which exception stands for which error of the native part."""

from __future__ import annotations


class NotFoundError(KeyError):
    """A column, a layer or a value that the store does not have.

    A `KeyError` whose text is the message, not the message in quotes.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


_KINDS: dict[str, type[Exception]] = {
    "not found": NotFoundError,
    "unsupported": NotImplementedError,
    "corrupt": ValueError,
    "out of bounds": IndexError,
    "invalid input": ValueError,
    "changed": OSError,
    "i/o": OSError,
    "over budget": MemoryError,
    "cancelled": RuntimeError,
    "internal": RuntimeError,
}


def of_kind(kind: str, message: str, is_os: bool, number: int | None) -> Exception:
    """Makes the exception for an error of the native part.

    Parameters
    ----------
    kind
        The error's kind, in words.
    message
        The whole message.
    is_os
        Whether the operating system reported it.
    number
        Its number there, if it has one.
    """
    if not is_os or kind not in ("not found", "i/o"):
        return _KINDS.get(kind, RuntimeError)(message)
    # The class that Python gives to the number: FileNotFoundError, PermissionError and so on.
    found = type(OSError(number, "")) if number is not None else OSError
    if kind == "not found" and not issubclass(found, FileNotFoundError):
        found = FileNotFoundError
    error = found(message)
    error.errno = number
    return error
