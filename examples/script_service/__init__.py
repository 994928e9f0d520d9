"""A web service that runs scripts of its customers, each within a quota: docs/script_service.md.

service   tenants, their scripts, and calls; nothing of HTTP
quotas    what a tenant may use, and what it has used
app       the service as an ASGI application
__main__  the application with two tenants, in uvicorn
"""

from .app import make_app
from .quotas import Quota, QuotaExceeded
from .service import Script, ScriptService, Tenant

__all__ = ["Quota", "QuotaExceeded", "Script", "ScriptService", "Tenant", "make_app"]
