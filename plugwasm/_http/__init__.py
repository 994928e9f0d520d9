"""HTTP requests on behalf of guests: which are allowed, and how they are sent.

egress            `Egress`: hosts, ports, methods, sizes and rates that are granted
policy            decisions about requests, by an `Egress` and a manifest
client            one request: checked, sent, led by redirects, read within limits
url               URLs and host names in one canonical form
addresses         which addresses are public
headers           headers that a guest may set, and those that the application adds
rate_limit        requests at a time and in a second
request_owner     the plugin that a request belongs to
transport         the interface of transports
body              types of a response's body
socket_transport  HTTP/1.1 over a socket
connection        connections and name lookups that respect the deadline
lookups           how many names are looked up at a time
proxy             requests by way of an HTTP proxy
tls               TLS over a socket that does not block
"""
