"""The plugins of an application: discovered, loaded, called by hook, reloaded when their files
change, and described for a settings page.

A hook is the name of an export. A plugin serves each hook that it exports as a function, and the
set calls those that serve it in order. A plugin that fails is skipped and its failure noted; the
others are called all the same.
"""

from ._plugin_set.changes import Changes
from ._plugin_set.description import Description, Grants
from ._plugin_set.dispatch import Result
from ._plugin_set.metadata import Setting
from ._plugin_set.plugin_set import PluginSet

__all__ = ["Changes", "Description", "Grants", "PluginSet", "Result", "Setting"]
