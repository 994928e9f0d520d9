"""One class of every kind that typed calls can take and return."""

from __future__ import annotations

import dataclasses
import enum
from datetime import date, datetime
from typing import Annotated, NamedTuple, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses


@dataclasses.dataclass
class Item:
    name: str
    price: float = 0.0


@dataclasses.dataclass
class Order:
    items: list[Item]
    placed: datetime | None = None


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    depth: int


class Pair(NamedTuple):
    left: str
    right: int


class Colour(enum.Enum):
    RED = "red"


class User(pydantic.BaseModel):
    name: str
    age: Annotated[int, pydantic.Field(ge=0)]
    since: date | None = None


class Opaque:
    pass
