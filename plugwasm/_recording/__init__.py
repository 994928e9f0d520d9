"""Recordings: the calls of a plugin with everything that the host answered, and their replay.

recorder       `Recorder`
recording      `Recording`: a recording as a file
schema         the parts of a recording
json_size      the memory that a JSON text would take, estimated before it is parsed
formatting     parts of a recording as text, and the first difference of two
buffer         captured calls, up to a number of bytes
capture        captures the calls and host calls of an instance
effects        what host functions do to the plugin, by block instead of by offset
wasi_calls     arguments and results of WASI functions, by role
playback       answers host calls in a replay
replay         makes the calls of a recording again, and compares
replay_plugin  makes the plugin that a replay calls
"""
