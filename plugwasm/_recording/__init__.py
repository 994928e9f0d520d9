"""Recordings: calls of a plugin with all that the host answered, and their replay.

recorder    `Recorder`
recording   `Recording`: a file, and the way to it and back
schema      the parts of a recording
files       writing files
json_size   memory that a JSON text would take, before it is read
formatting  parts of a recording as text, and the first difference of two
capture     takes down the life of an instance
effects     what host functions do to the plugin, by block instead of by offset
wasi_calls  arguments and results of WASI functions, by role
playback    stands for the host in a replay
replay      runs the calls of a recording once more, and compares
"""
