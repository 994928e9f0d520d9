"""How the cost of plugins grows, and where the time goes: docs/performance.md (`make performance`).

    __main__    measures, and writes the figures and the page
    measuring   what is measured
    child       the program of measurements that need a process each
    scripts     what is measured of scripts
    guests      small modules that are measured
    raw         calls through ctypes without plugwasm
    page        the page and its plots, from the figures
    scripts_page   its tables of scripts
    numbers     numbers and tables as text
    page.md     the text of the page, with the names of what is filled in
    svg         plots

The figures are kept in docs/performance/figures.json. `make docs` makes the page from them again,
so its text can be changed without a measurement; nothing of the page's figures is typed.
"""
