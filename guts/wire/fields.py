"""Kinds of field: how one value of a message is checked, packed and read.

A message lists its fields once (``messages.py``); that list drives validation at construction, encoding and
decoding. ``Reader`` walks the bytes as the list tells it to, so a list or a string is refused by its declared
length before anything is allocated for it, and a value of a wrong type is refused where it stands.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final, final

import msgpack

from guts.canonical import Value
from guts.wire.limits import MAX_ITEMS

_NIL: Final = b"\xc0"


class Reader:
    """Takes msgpack values one by one from the bytes of one message.

    Every method raises ``ValueError`` or ``msgpack.UnpackException`` on bytes that are not what was asked.
    """

    __slots__ = ("_data", "_items", "_unpacker")

    def __init__(self, data: bytes) -> None:
        """``data`` is already known to be within the largest message."""
        self._data = data
        self._items = MAX_ITEMS
        # Containers are read by read_array_header only: one where a scalar belongs is refused unread.
        self._unpacker = msgpack.Unpacker(
            raw=False,
            max_buffer_size=len(data),
            max_array_len=0,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=len(data),
            max_bin_len=len(data),
        )
        self._unpacker.feed(data)

    def _count(self) -> None:
        self._items -= 1
        if self._items < 0:
            raise ValueError(f"more than {MAX_ITEMS} values")

    def array(self, max_length: int) -> int:
        """Enter a list and return its length."""
        self._count()
        length: int = self._unpacker.read_array_header()
        if length > max_length:
            raise ValueError(f"a list of {length} where {max_length} are allowed")
        return length

    def array_of(self, length: int) -> None:
        """Enter a list that must have exactly ``length`` elements."""
        if self.array(length) != length:
            raise ValueError(f"a list that should have {length} elements")

    def scalar(self) -> Any:
        """Return the next value, which is not a list."""
        self._count()
        return self._unpacker.unpack()

    def skip_nil(self) -> bool:
        """Take the next value if it is nil; say whether it was."""
        here = self._unpacker.tell()
        if self._data[here : here + 1] != _NIL:
            return False
        self.scalar()
        return True


class Field(ABC):
    """One kind of field."""

    @abstractmethod
    def check(self, value: Any) -> None:
        """Raises: ``ValueError``: ``value`` is not of this kind, or outside its range."""

    @abstractmethod
    def pack(self, value: Any) -> Value:
        """Return ``value`` (checked at construction) as canonical msgpack knows it."""

    @abstractmethod
    def read(self, reader: Reader) -> Any:
        """Return the next value of ``reader``, checked at the latest when its message is constructed."""


@final
@dataclass(frozen=True, slots=True)
class Uint(Field):
    """An integer from ``low`` to ``high``, both included."""

    low: int
    high: int

    def check(self, value: Any) -> None:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError(f"not an integer from {self.low} to {self.high}")

    def pack(self, value: Any) -> Value:
        return int(value)

    def read(self, reader: Reader) -> Any:
        return reader.scalar()


@final
@dataclass(frozen=True, slots=True)
class Code(Field):
    """A number with a name: a member of ``kind``."""

    kind: type[IntEnum]

    def check(self, value: Any) -> None:
        if type(value) is not self.kind:
            raise ValueError(f"not a {self.kind.__name__}")

    def pack(self, value: Any) -> Value:
        return int(value)

    def read(self, reader: Reader) -> Any:
        value = reader.scalar()
        if type(value) is not int:
            raise ValueError(f"not a {self.kind.__name__}")
        return self.kind(value)


@final
@dataclass(frozen=True, slots=True)
class Bytes(Field):
    """A byte string of ``low`` to ``high`` bytes; where ``or_empty``, of none too."""

    low: int
    high: int
    or_empty: bool = False

    def check(self, value: Any) -> None:
        fits = isinstance(value, bytes) and self.low <= len(value) <= self.high
        if not fits and not (self.or_empty and value == b""):
            raise ValueError(f"not {self.low} to {self.high} bytes")

    def pack(self, value: Any) -> Value:
        return bytes(value)

    def read(self, reader: Reader) -> Any:
        return reader.scalar()


@final
@dataclass(frozen=True, slots=True)
class Id(Field):
    """An id of the type ``kind`` (``guts.ids``)."""

    kind: type[bytes]

    def check(self, value: Any) -> None:
        if type(value) is not self.kind:
            raise ValueError(f"not a {self.kind.__name__}")

    def pack(self, value: Any) -> Value:
        return bytes(value)

    def read(self, reader: Reader) -> Any:
        value = reader.scalar()
        if type(value) is not bytes:
            raise ValueError(f"not a {self.kind.__name__}")
        return self.kind(value)


@final
@dataclass(frozen=True, slots=True)
class Text(Field):
    """Printable text of ``low`` to ``high`` bytes of UTF-8: nothing in it can forge a line of a log."""

    low: int
    high: int

    def check(self, value: Any) -> None:
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError("not printable text")
        if not self.low <= len(value.encode()) <= self.high:
            raise ValueError(f"not {self.low} to {self.high} bytes of text")

    def pack(self, value: Any) -> Value:
        return str(value)

    def read(self, reader: Reader) -> Any:
        return reader.scalar()


@final
@dataclass(frozen=True, slots=True)
class ListOf(Field):
    """A tuple of up to ``high`` values of one kind."""

    item: Field
    high: int

    def check(self, value: Any) -> None:
        if not isinstance(value, tuple) or len(value) > self.high:
            raise ValueError(f"not a tuple of up to {self.high}")
        for element in value:
            self.item.check(element)

    def pack(self, value: Any) -> Value:
        return [self.item.pack(element) for element in value]

    def read(self, reader: Reader) -> Any:
        return tuple(self.item.read(reader) for _ in range(reader.array(self.high)))


class Layout:
    """Base of messages and of their parts: a frozen dataclass whose ``FIELDS`` say what each attribute is."""

    __slots__ = ()

    FIELDS: ClassVar[tuple[Field, ...]]
    __match_args__: ClassVar[tuple[str, ...]]  # the attributes in order, as every dataclass has them

    def __post_init__(self) -> None:
        """Raises: ``ValueError``: a field is not of its kind, or outside its range."""
        for name, field in zip(self.__match_args__, self.FIELDS, strict=True):
            try:
                field.check(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}.{name}: {error}") from None

    def packed(self) -> list[Value]:
        """Return the fields as canonical msgpack knows them, in order."""
        named = zip(self.__match_args__, self.FIELDS, strict=True)
        return [field.pack(getattr(self, name)) for name, field in named]


@final
@dataclass(frozen=True, slots=True)
class Part(Field):
    """A list of fixed length that is a value of its own."""

    layout: type[Layout]

    def check(self, value: Any) -> None:
        if type(value) is not self.layout:
            raise ValueError(f"not a {self.layout.__name__}")

    def pack(self, value: Any) -> Value:
        packed: list[Value] = value.packed()
        return packed

    def read(self, reader: Reader) -> Any:
        reader.array_of(len(self.layout.FIELDS))
        return self.layout(*[field.read(reader) for field in self.layout.FIELDS])


@final
@dataclass(frozen=True, slots=True)
class PartOrNil(Field):
    """A ``Part``, or nil for ``None``."""

    part: Part

    def check(self, value: Any) -> None:
        if value is not None:
            self.part.check(value)

    def pack(self, value: Any) -> Value:
        return None if value is None else self.part.pack(value)

    def read(self, reader: Reader) -> Any:
        return None if reader.skip_nil() else self.part.read(reader)


@final
@dataclass(frozen=True, slots=True)
class OneOf(Field):
    """A list whose first element, an index into ``layouts``, says which of them the rest is."""

    layouts: tuple[type[Layout], ...]

    def check(self, value: Any) -> None:
        if type(value) not in self.layouts:
            raise ValueError("not one of " + ", ".join(layout.__name__ for layout in self.layouts))

    def pack(self, value: Any) -> Value:
        return [self.layouts.index(type(value)), *value.packed()]

    def read(self, reader: Reader) -> Any:
        length = reader.array(1 + max(len(layout.FIELDS) for layout in self.layouts))
        tag = reader.scalar()
        if type(tag) is not int or not 0 <= tag < len(self.layouts):
            raise ValueError("an unknown kind of element")
        layout = self.layouts[tag]
        if length != 1 + len(layout.FIELDS):
            raise ValueError(f"not the number of fields of {layout.__name__}")
        return layout(*[field.read(reader) for field in layout.FIELDS])
