"""HTTP requests on behalf of guests: their policy, and the client that sends them.

egress            `Egress`: the application's settings, a value
policy            which requests are allowed: `allowed_hosts`, ports, methods, sizes, addresses
client            sends a request, follows redirects, reads the response within limits
url               URLs and host names in one canonical form
addresses         which addresses are public
headers           headers that a guest may set, and those that the application adds
rate_limit        limits on requests at a time and in a second
request_owner     the plugin or download that a request belongs to
transport         the interface of transports
body              types of a response's body
socket_transport  HTTP/1.1 over a socket
connection        connections and name lookups that respect the deadline
lookups           limits on name lookups at a time
proxy             requests by way of an HTTP proxy
tls               TLS over a socket that does not block
"""
