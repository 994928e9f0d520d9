"""`dataclass`, for classes of a script that begin in the first column."""

import extism


class FrozenInstanceError(AttributeError):
    pass


class _Missing:
    def __repr__(self):
        return "MISSING"


MISSING = _Missing()


class Field:
    def __init__(self, default=MISSING, default_factory=MISSING, **_):
        self.name = ""
        self.type = ("Any",)
        self.default = default
        self.default_factory = default_factory

    def _make_default(self, owner):
        if self.default_factory is not MISSING:
            return self.default_factory()
        if self.default is MISSING:
            raise TypeError("%s: `%s` is missing" % (owner, self.name))
        return self.default


def field(**options):
    return Field(**options)


def dataclass(cls=None, *, frozen=False, eq=True, order=False, repr=True, **_):
    """Add `__init__`, `__repr__` and `__eq__` to a class, from its annotated fields."""
    if cls is None:
        return lambda one: dataclass(one, frozen=frozen, eq=eq, order=order, repr=repr)
    name = cls.__name__
    if name not in extism._classes:
        raise TypeError("dataclass: `%s` must begin in the first column of the script" % name)
    fields = {}
    for base in cls.__bases__:
        fields.update(getattr(base, "__dataclass_fields__", {}))
    for key, annotation in extism._classes[name]:
        if annotation.startswith("ClassVar") or annotation.startswith("typing.ClassVar"):
            continue
        default = cls.__dict__.get(key, MISSING)
        one = default if isinstance(default, Field) else Field(default)
        if isinstance(default, Field) and default.default is not MISSING:
            setattr(cls, key, default.default)
        one.name = key
        one.type = extism._parse_type(annotation)
        fields[key] = one
    cls.__dataclass_fields__ = fields
    set_field = object.__setattr__

    def __init__(self, *values, **named):
        if len(values) > len(fields):
            raise TypeError("%s: expected at most %d values, got %d" % (name, len(fields), len(values)))
        left = iter(values)
        done = 0
        for key in names:
            if done < len(values):
                if key in named:
                    raise TypeError("%s: `%s` is given twice" % (name, key))
                value = next(left)
                done += 1
            elif key in named:
                value = named.pop(key)
            else:
                value = fields[key]._make_default(name)
            set_field(self, key, value)
        for key in named:
            raise TypeError("%s: there is no field `%s`" % (name, key))
        after = getattr(self, "__post_init__", None)
        if after is not None:
            after()

    def __repr__(self):
        return name + "(" + ", ".join("%s=%r" % (key, getattr(self, key)) for key in names) + ")"

    def __eq__(self, other):
        return type(other) is type(self) and _values(self, names) == _values(other, names)

    def __lt__(self, other):
        return _values(self, names) < _values(other, names)

    def __le__(self, other):
        return _values(self, names) <= _values(other, names)

    def __setattr__(self, key, value):
        raise FrozenInstanceError("cannot assign to field %r" % key)

    def __hash__(self):
        return hash(_values(self, names))

    names = _in_order(fields, extism._classes, cls)
    own = cls.__dict__
    added = {"__init__": __init__}
    if repr:
        added["__repr__"] = __repr__
    if eq:
        added["__eq__"] = __eq__
    if order:
        added["__lt__"] = __lt__
        added["__le__"] = __le__
    if frozen:
        added["__setattr__"] = __setattr__
        added["__hash__"] = __hash__
    for key, function in added.items():
        if key not in own:
            setattr(cls, key, function)
    return cls


def _in_order(fields, classes, cls):
    names = []
    for base in cls.__bases__:
        for key in getattr(base, "__dataclass_names__", ()):
            if key not in names:
                names.append(key)
    for key, _ in classes[cls.__name__]:
        if key in fields and key not in names:
            names.append(key)
    cls.__dataclass_names__ = tuple(names)
    return names


def _values(item, names):
    return tuple([getattr(item, key) for key in names])


def fields(item):
    cls = item if isinstance(item, type) else type(item)
    return tuple([cls.__dataclass_fields__[key] for key in cls.__dataclass_names__])


def is_dataclass(item):
    return hasattr(item, "__dataclass_fields__")


def asdict(item):
    return extism._plain(item)


def astuple(item):
    return _values(item, type(item).__dataclass_names__)


def replace(item, **changes):
    named = {key: getattr(item, key) for key in type(item).__dataclass_names__}
    named.update(changes)
    return type(item)(**named)
