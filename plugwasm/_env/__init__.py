"""The host half of what plugins see.

guest       what the host keeps for one instance; the environment of all host callbacks
functions   `extism:host/env`: config, vars, HTTP, log
vars        a plugin's vars and their limit
log         a plugin's log
http        the request document of `http_request`
"""
