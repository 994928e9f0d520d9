"""Names for annotations. They say nothing at run time: annotations are read from the text."""


class _Form:
    def __init__(self, name):
        self._name = name

    def __getitem__(self, item):
        return self

    def __call__(self, *arguments, **named):
        return object

    def __or__(self, other):
        return self

    def __ror__(self, other):
        return self

    def __repr__(self):
        return "typing." + self._name


TYPE_CHECKING = False


def __getattr__(name):
    if name[0].isupper():
        return _Form(name)
    raise AttributeError(name)


class TypedDict(dict):
    pass


class NamedTuple:
    pass


class Protocol:
    pass


class Generic:
    pass


def cast(type, value):
    return value


def overload(function):
    return function


def final(item):
    return item


def runtime_checkable(item):
    return item


def TypeVar(name, *constraints, **options):
    return object


def NewType(name, type):
    return lambda value: value
