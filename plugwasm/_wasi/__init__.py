"""WASI preview 1 in Python, and the files it grants.

options          `WasiOptions`: clocks and random bytes
preview1         one method for each function of `wasi_snapshot_preview1`
abi              its functions, error numbers, rights, flags and record layouts
descriptors      the `fd_*` functions
paths            the `path_*` functions
path_resolution  resolves paths without leaving the directory that they start at
files            granted directories of the host, open files and directories
stdio            standard streams
"""
