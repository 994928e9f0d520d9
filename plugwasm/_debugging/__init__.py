"""What `plugwasm.debugging` is made of.

code        where a module's functions are in its bytes, and what they are called
dwarf       from an address to source lines (with pyelftools)
frames      from the frames of an error to functions and source lines
coredump    the state of a guest whose call was ended, as files
profile     what a profile shows, and the files that it is saved as
sampling    stacks of a guest at work
flame       a flame graph of them, as SVG or HTML
"""
