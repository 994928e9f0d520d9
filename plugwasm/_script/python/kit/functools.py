"""Functions that make functions."""


def partial(function, *first, **fixed):
    def call(*values, **named):
        return function(*first, *values, **dict(fixed, **named))

    return call


def reduce(function, items, *start):
    items = iter(items)
    value = start[0] if start else next(items)
    for item in items:
        value = function(value, item)
    return value


def wraps(wrapped, **_):
    return lambda wrapper: wrapper


def update_wrapper(wrapper, wrapped, **_):
    return wrapper


def cmp_to_key(compare):
    class Key:
        def __init__(self, item):
            self.item = item

        def __lt__(self, other):
            return compare(self.item, other.item) < 0

    return Key


def lru_cache(maxsize=128, typed=False):
    if callable(maxsize):
        return lru_cache()(maxsize)

    def decorate(function):
        known = {}
        order = []

        def call(*values, **named):
            key = (values, tuple(sorted(named.items())))
            if key in known:
                return known[key]
            result = function(*values, **named)
            if maxsize is not None:
                if len(order) >= maxsize:
                    del known[order.pop(0)]
                order.append(key)
            known[key] = result
            return result

        return call

    return decorate


def cache(function):
    return lru_cache(None)(function)


def total_ordering(cls):
    if "__lt__" in cls.__dict__:
        cls.__gt__ = lambda self, other: not (self < other or self == other)
        cls.__le__ = lambda self, other: self < other or self == other
        cls.__ge__ = lambda self, other: not self < other
    return cls
