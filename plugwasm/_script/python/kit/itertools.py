"""Iterators made of iterators."""


def count(start=0, step=1):
    while True:
        yield start
        start += step


def cycle(items):
    kept = list(items)
    while kept:
        for item in kept:
            yield item


def repeat(item, times=None):
    if times is None:
        while True:
            yield item
    for _ in range(times):
        yield item


def chain(*groups):
    for group in groups:
        for item in group:
            yield item


def _chain_from_iterable(groups):
    for group in groups:
        for item in group:
            yield item


chain_from_iterable = _chain_from_iterable


def islice(items, *bounds):
    bounds = slice(*bounds)
    start, stop, step = bounds.start or 0, bounds.stop, bounds.step or 1
    at = 0
    if stop is not None and stop <= start:
        return
    for item in items:
        if at >= start and (at - start) % step == 0:
            yield item
        at += 1
        if stop is not None and at >= stop:
            return


def takewhile(test, items):
    for item in items:
        if not test(item):
            return
        yield item


def dropwhile(test, items):
    dropping = True
    for item in items:
        dropping = dropping and test(item)
        if not dropping:
            yield item


def starmap(function, groups):
    for group in groups:
        yield function(*group)


def zip_longest(*groups, fillvalue=None):
    iterators = [iter(group) for group in groups]
    end = object()
    while True:
        items = [next(one, end) for one in iterators]
        if all(item is end for item in items):
            return
        yield tuple([fillvalue if item is end else item for item in items])


def accumulate(items, function=None, initial=None):
    value, started = initial, initial is not None
    if started:
        yield value
    for item in items:
        value = item if not started else value + item if function is None else function(value, item)
        started = True
        yield value


def pairwise(items):
    first, before = True, None
    for item in items:
        if not first:
            yield before, item
        first, before = False, item


def groupby(items, key=None):
    group, of, started = [], None, False
    for item in items:
        now = item if key is None else key(item)
        if started and now != of:
            yield of, iter(group)
            group = []
        started, of = True, now
        group.append(item)
    if started:
        yield of, iter(group)


def product(*groups, repeat=1):
    found = [()]
    for group in [list(one) for one in groups] * repeat:
        found = [before + (item,) for before in found for item in group]
    return iter(found)


def permutations(items, length=None):
    items = tuple(items)
    length = len(items) if length is None else length

    def choose(chosen):
        if len(chosen) == length:
            yield tuple([items[i] for i in chosen])
            return
        for i in range(len(items)):
            if i not in chosen:
                for one in choose(chosen + [i]):
                    yield one

    return choose([])


def combinations(items, length):
    items = tuple(items)

    def choose(chosen, first):
        if len(chosen) == length:
            yield tuple([items[i] for i in chosen])
            return
        for i in range(first, len(items)):
            for one in choose(chosen + [i], i + 1):
                yield one

    return choose([], 0)
